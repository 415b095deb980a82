// Purpose: reads the engine's input: options, endpoints and deliveries. Checks
// sizes before it copies anything.
// Ownership: results are plain values. No term is kept.
// Thread: any scheduler.
#include "nif/nif_engine_input.hpp"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "nif/nif_atoms.hpp"
#include "nif/nif_headers.hpp"
#include "nif/nif_policy.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks::nif {
namespace {

constexpr std::size_t kWebhookIdBytesMax = 255;

struct EndpointLimit {
  std::string_view name;
  std::uint32_t Endpoint::*limit;
};
constexpr EndpointLimit kEndpointLimits[] = {
    {"timeout_ms", &Endpoint::timeout_ms},
    {"connect_timeout_ms", &Endpoint::connect_timeout_ms},
    {"in_flight_max", &Endpoint::in_flight_max},
    {"rate_per_s", &Endpoint::rate_per_s},
};

// The entry of a table by its name. An unknown name is a wrong argument.
template <class Table>
const auto& entry_of(const Table& table, std::string_view name) {
  const auto found = std::ranges::find_if(
      table, [name](const auto& entry) { return entry.name == name; });
  expect(found != std::ranges::end(table));
  return *found;
}

Refused invalid_option(std::string_view option) {
  return {"invalid_option", option};
}

std::vector<std::uint32_t> read_delays(ErlNifEnv* env, ERL_NIF_TERM list) {
  const Refused refused = invalid_option("retry_delays_ms");
  std::vector<std::uint32_t> delays;
  for_each_element(env, list, [&](ERL_NIF_TERM item) {
    delays.push_back(to_uint32(env, item, refused));
    return delays.size() <= kRetryStepsMax;  // check_options refuses one more
  });
  return delays;
}

// The engine's clock is Erlang's monotonic time with a fixed offset, which does
// not leap when the VM corrects its own offset. A scheduler drives the engine,
// so it may ask for that time.
std::function<std::int64_t()> clock_with_offset(std::int64_t offset_ms) {
  return [offset_ms] {
    return std::int64_t{enif_monotonic_time(ERL_NIF_MSEC)} + offset_ms;
  };
}

// Empty: nil.
std::string read_text_option(ErlNifEnv* env, ERL_NIF_TERM term,
                             std::string_view name) {
  constexpr std::size_t kTextBytesMax = 4096;
  if (is_nil(term)) {
    return {};
  }
  const auto text = expected(as_binary(env, term));
  if (text.empty() || text.size() > kTextBytesMax ||
      text.find('\0') != std::string_view::npos) {
    throw invalid_option(name);
  }
  return std::string(text);
}

// `key`, or `{key, expires_at_ms | nil}`.
EndpointKey read_key(ErlNifEnv* env, ERL_NIF_TERM term) {
  std::optional<std::int64_t> expires_at_ms;
  if (const ERL_NIF_TERM* pair = as_pair(env, term)) {
    term = pair[0];
    expires_at_ms = as_int64(env, pair[1]);
    expect(expires_at_ms || is_nil(pair[1]));
  }
  return {value_of(SigningKey::parse(expected(as_binary(env, term)))),
          expires_at_ms};
}

std::vector<EndpointKey> read_keys(ErlNifEnv* env, ERL_NIF_TERM list) {
  std::vector<EndpointKey> keys;
  for_each_element(env, list, [&](ERL_NIF_TERM item) {
    if (keys.size() == kSigningKeysMax) {
      throw Refused{"too_many_keys"};
    }
    keys.push_back(read_key(env, item));
    return true;
  });
  if (keys.empty()) {
    throw Refused{"no_keys"};
  }
  return keys;
}

std::vector<std::pair<std::string, std::string>> read_request_headers(
    ErlNifEnv* env, ERL_NIF_TERM list) {
  const std::vector<HeaderView> headers = read_headers(env, list);
  if (const auto problem = check_headers(headers)) {
    throw Refused{problem->reason};
  }
  return {headers.begin(), headers.end()};
}

// A fan-out passes the same body again and again. Comparing it costs less than
// another copy, which would be kept as long as the delivery waits.
std::shared_ptr<const std::string> read_body(ErlNifEnv* env, ERL_NIF_TERM term,
                                             std::size_t bytes_max,
                                             const Delivery* previous) {
  const auto body = expected(as_binary(env, term));
  if (body.size() > bytes_max) {
    throw Refused{"body_too_large"};
  }
  return previous != nullptr && *previous->body == body
             ? previous->body
             : std::make_shared<const std::string>(body);
}

std::string read_delivery_id(ErlNifEnv* env, ERL_NIF_TERM term) {
  const auto id = expected(as_binary(env, term));
  if (!is_message_id(id)) {
    throw Refused{"invalid_id"};
  }
  return std::string(id);
}

}  // namespace

std::string read_webhook_id(ErlNifEnv* env, ERL_NIF_TERM term) {
  const auto id = expected(as_binary(env, term));
  if (id.size() > kWebhookIdBytesMax) {
    throw Refused{"invalid_webhook_id"};
  }
  return std::string(id);
}

EngineOptions read_engine_options(ErlNifEnv* env, ERL_NIF_TERM map) {
  EngineOptions options;
  for_each_entry(env, map, [&](std::string_view name, ERL_NIF_TERM value) {
    if (name == "policy") {
      try {
        options.policy = read_policy(env, value);
      } catch (const Refused&) {
        throw invalid_option(name);
      }
    } else if (name == "retry_delays_ms") {
      options.retry_delays_ms = read_delays(env, value);
    } else if (name == "ca_file") {
      options.ca_file = read_text_option(env, value, "ca_file");
    } else if (name == "dns_servers") {
      options.dns_servers = read_text_option(env, value, "dns_servers");
    } else if (name == "user_agent") {
      options.user_agent = read_text_option(env, value, "user_agent");
    } else if (name == "time_offset_ms") {
      options.now_ms = clock_with_offset(expected(as_int64(env, value)));
    } else {
      const NumberOption& number = entry_of(number_options(), name);
      options.*number.option =
          to_uint32(env, value, invalid_option(number.name));
    }
  });
  return options;
}

Endpoint read_endpoint(ErlNifEnv* env, ERL_NIF_TERM map,
                       const UrlPolicy& policy) {
  Endpoint endpoint;
  for_each_entry(env, map, [&](std::string_view name, ERL_NIF_TERM value) {
    if (name == "webhook_id") {
      endpoint.webhook_id = read_webhook_id(env, value);
      if (endpoint.webhook_id.empty()) {
        throw Refused{"invalid_webhook_id"};
      }
    } else if (name == "url") {
      endpoint.url =
          value_of(check_url(expected(as_binary(env, value)), policy));
    } else if (name == "keys") {
      endpoint.keys = read_keys(env, value);
    } else if (name == "headers") {
      endpoint.headers = read_request_headers(env, value);
    } else {
      const EndpointLimit& limit = entry_of(kEndpointLimits, name);
      if (!is_nil(value)) {
        endpoint.*limit.limit = to_uint32(env, value, Refused{"invalid_limit"});
      }
    }
  });
  expect(!endpoint.keys.empty() && !endpoint.webhook_id.empty() &&
         !endpoint.url.text.empty());
  return endpoint;
}

Delivery read_delivery(ErlNifEnv* env, ERL_NIF_TERM map,
                       std::size_t body_bytes_max, const Delivery* previous) {
  const auto find = [&](ERL_NIF_TERM key) -> std::optional<ERL_NIF_TERM> {
    ERL_NIF_TERM value;
    if (enif_get_map_value(env, map, key, &value) == 0) {
      return std::nullopt;
    }
    return value;
  };
  Delivery delivery;
  delivery.id = read_delivery_id(env, expected(find(atoms::id)));
  delivery.webhook_id = read_webhook_id(env, expected(find(atoms::webhook_id)));
  delivery.body =
      read_body(env, expected(find(atoms::body)), body_bytes_max, previous);
  if (const auto count = find(atoms::attempts)) {
    delivery.attempts = to_uint32(env, *count, BadArgument());
  }
  if (const auto count = find(atoms::schedule_from)) {
    delivery.schedule_from = to_uint32(env, *count, BadArgument());
  }
  if (const auto due = find(atoms::next_at_ms); due && !is_nil(*due)) {
    delivery.due_at_ms = expected(as_int64(env, *due));
  }
  if (const auto at = find(atoms::created_at_ms); at && !is_nil(*at)) {
    delivery.accepted_at_ms = expected(as_int64(env, *at));
  }
  if (const auto flag = find(atoms::manual)) {
    delivery.manual = expected(as_bool(*flag));
  }
  if (const auto flag = find(atoms::retry)) {
    delivery.retry = expected(as_bool(*flag));
  }
  return delivery;
}

}  // namespace webhooks::nif
