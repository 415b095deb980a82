// Purpose: what the engine is given: options, endpoints and deliveries.
// Ownership: results are plain values. No term is kept.
// Thread: any scheduler.
#include "nif/nif_engine_input.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "nif/nif_atoms.hpp"
#include "nif/nif_headers.hpp"
#include "nif/nif_policy.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks::nif {
namespace {

template <class Struct>
struct NumberField {
  std::string_view name;
  std::uint32_t Struct::*field;
};
using NumberOption = NumberField<EngineOptions>;
using EndpointLimit = NumberField<Endpoint>;

constexpr std::array kNumberOptions = {
    NumberOption{"jitter_percent", &EngineOptions::jitter_percent},
    NumberOption{"park_after_ms", &EngineOptions::park_after_ms},
    NumberOption{"retry_after_max_ms", &EngineOptions::retry_after_max_ms},
    NumberOption{"timeout_ms", &EngineOptions::timeout_ms},
    NumberOption{"connect_timeout_ms", &EngineOptions::connect_timeout_ms},
    NumberOption{"lane_in_flight_max", &EngineOptions::lane_in_flight_max},
    NumberOption{"lane_rate_per_s", &EngineOptions::lane_rate_per_s},
    NumberOption{"destination_in_flight_max",
                 &EngineOptions::destination_in_flight_max},
    NumberOption{"destination_rate_per_s",
                 &EngineOptions::destination_rate_per_s},
    NumberOption{"in_flight_max", &EngineOptions::in_flight_max},
    NumberOption{"descriptors_max", &EngineOptions::descriptors_max},
    NumberOption{"waiting_max", &EngineOptions::waiting_max},
    NumberOption{"circuit_failures", &EngineOptions::circuit_failures},
    NumberOption{"body_bytes_max", &EngineOptions::body_bytes_max},
    NumberOption{"response_body_bytes_max",
                 &EngineOptions::response_body_bytes_max},
    NumberOption{"response_header_bytes_max",
                 &EngineOptions::response_header_bytes_max},
    NumberOption{"resolver_threads_max", &EngineOptions::resolver_threads_max},
    NumberOption{"dns_timeout_ms", &EngineOptions::dns_timeout_ms},
    NumberOption{"dns_cache_ms", &EngineOptions::dns_cache_ms},
    NumberOption{"multi_handles", &EngineOptions::multi_handles},
};

constexpr std::array kEndpointLimits = {
    EndpointLimit{"timeout_ms", &Endpoint::timeout_ms},
    EndpointLimit{"connect_timeout_ms", &Endpoint::connect_timeout_ms},
    EndpointLimit{"in_flight_max", &Endpoint::in_flight_max},
    EndpointLimit{"rate_per_s", &Endpoint::rate_per_s},
};

template <class Fields>
auto find_field(const Fields& fields, std::string_view name) noexcept {
  return std::ranges::find(fields, name,
                           [](const auto& field) { return field.name; });
}

// `refused`: an integer that is out of range.
ReadStatus read_number(ErlNifEnv* env, ERL_NIF_TERM term, std::uint32_t* number,
                       const ReadStatus& refused = kBadarg) {
  const auto value = as_uint32(env, term);
  if (value) {
    *number = *value;
    return kRead;
  }
  return enif_term_type(env, term) == ERL_NIF_TERM_TYPE_INTEGER ? refused
                                                                : kBadarg;
}

ReadStatus read_delays(ErlNifEnv* env, ERL_NIF_TERM list,
                       EngineOptions* options) {
  const ReadStatus refused = invalid_option("retry_delays_ms");
  std::vector<std::uint32_t> delays;
  const ReadStatus status = read_list(env, list, [&](ERL_NIF_TERM item) {
    std::uint32_t delay = 0;
    const ReadStatus number = read_number(env, item, &delay, refused);
    if (number.ok() && delays.size() > kRetryStepsMax) {
      return refused;
    }
    delays.push_back(delay);
    return number;
  });
  options->retry_delays_ms = std::move(delays);
  return status;
}

// The engine's clock is Erlang's monotonic time with a fixed offset, which does
// not leap when the VM corrects its own offset. A scheduler drives the engine,
// so it may ask for that time.
ReadStatus read_time_offset(ErlNifEnv* env, ERL_NIF_TERM term,
                            EngineOptions* options) {
  const auto offset_ms = as_int64(env, term);
  if (!offset_ms) {
    return kBadarg;
  }
  options->now_ms = [offset = *offset_ms] {
    return std::int64_t{enif_monotonic_time(ERL_NIF_MSEC)} + offset;
  };
  return kRead;
}

ReadStatus read_text_option(ErlNifEnv* env, ERL_NIF_TERM term,
                            std::string_view name, std::string* text) {
  constexpr std::size_t kTextBytesMax = 4096;
  if (enif_is_identical(term, atoms::nil) != 0) {
    return kRead;
  }
  const auto value = as_binary(env, term);
  if (!value) {
    return kBadarg;
  }
  if (value->empty() || value->size() > kTextBytesMax ||
      value->find('\0') != std::string_view::npos) {
    return invalid_option(name);
  }
  *text = *value;
  return kRead;
}

// `key`, or `{key, expires_at_ms | nil}`.
ReadStatus read_key(ErlNifEnv* env, ERL_NIF_TERM term, Endpoint* endpoint) {
  std::optional<std::int64_t> expires_at_ms;
  if (const ERL_NIF_TERM* pair = as_pair(env, term)) {
    term = pair[0];
    expires_at_ms = as_int64(env, pair[1]);
    if (!expires_at_ms && enif_is_identical(pair[1], atoms::nil) == 0) {
      return kBadarg;
    }
  }
  const auto text = as_binary(env, term);
  if (!text) {
    return kBadarg;
  }
  if (endpoint->keys.size() == kSigningKeysMax) {
    return failed("too_many_keys");
  }
  auto key = SigningKey::parse(*text);
  if (!key.ok()) {
    return failed(key.error().reason);
  }
  endpoint->keys.push_back({std::move(key).value(), expires_at_ms});
  return kRead;
}

ReadStatus read_keys(ErlNifEnv* env, ERL_NIF_TERM list, Endpoint* endpoint) {
  const ReadStatus status = read_list(env, list, [&](ERL_NIF_TERM item) {
    return read_key(env, item, endpoint);
  });
  return status.ok() && endpoint->keys.empty() ? failed("no_keys") : status;
}

// Judges the headers before it copies them: they may be of any size.
ReadStatus read_headers(ErlNifEnv* env, ERL_NIF_TERM list, Endpoint* endpoint) {
  std::vector<HeaderView> headers;
  const ReadStatus status = read_header_list(env, list, &headers);
  if (!status.ok()) {
    return status;
  }
  if (const auto problem =
          check_headers(std::span<const HeaderView>(headers))) {
    return failed(problem->reason);
  }
  endpoint->headers.assign(headers.begin(), headers.end());
  return kRead;
}

ReadStatus read_webhook_id(ErlNifEnv* env, ERL_NIF_TERM term, std::string* id) {
  const auto text = as_binary(env, term);
  if (!text) {
    return kBadarg;
  }
  if (text->size() > kWebhookIdBytesMax) {
    return failed("invalid_webhook_id");
  }
  *id = *text;
  return kRead;
}

ReadStatus read_url(ErlNifEnv* env, ERL_NIF_TERM term, const UrlPolicy& policy,
                    Url* checked) {
  const auto text = as_binary(env, term);
  if (!text) {
    return kBadarg;
  }
  auto url = check_url(*text, policy);
  if (!url.ok()) {
    return failed(url.error().reason);
  }
  *checked = std::move(url).value();
  return kRead;
}

// Printable ASCII without '.' (the signed text separates by it) and space.
ReadStatus read_delivery_id(ErlNifEnv* env, ERL_NIF_TERM term,
                            std::string* id) {
  const auto text = as_binary(env, term);
  if (!text) {
    return kBadarg;
  }
  if (text->empty() || text->size() > kDeliveryIdBytesMax ||
      !std::ranges::all_of(
          *text, [](char c) { return c > ' ' && c <= '~' && c != '.'; })) {
    return failed("invalid_id");
  }
  *id = *text;
  return kRead;
}

ReadStatus read_body(ErlNifEnv* env, ERL_NIF_TERM term, std::size_t bytes_max,
                     const Delivery* previous, Delivery* delivery) {
  const auto body = as_binary(env, term);
  if (!body) {
    return kBadarg;
  }
  if (body->size() > bytes_max) {
    return failed("body_too_large");
  }
  // A fan-out passes the same body again and again. Comparing it costs less
  // than another copy, which would be kept as long as the delivery waits.
  if (previous != nullptr && previous->body && *previous->body == *body) {
    delivery->body = previous->body;
  } else {
    delivery->body = std::make_shared<const std::string>(*body);
  }
  return kRead;
}

ReadStatus read_due(ErlNifEnv* env, ERL_NIF_TERM term, Delivery* delivery) {
  const auto due_at_ms = as_int64(env, term);
  delivery->due_at_ms = due_at_ms.value_or(0);
  return due_at_ms || enif_is_identical(term, atoms::nil) != 0 ? kRead
                                                               : kBadarg;
}

}  // namespace

ReadStatus read_engine_options(ErlNifEnv* env, ERL_NIF_TERM map,
                               EngineOptions* options) {
  return read_map(env, map, [&](std::string_view name, ERL_NIF_TERM value) {
    if (name == "policy") {
      const ReadStatus status = read_policy(env, value, &options->policy);
      return status.ok() || status.badarg ? status : invalid_option("policy");
    }
    if (name == "retry_delays_ms") {
      return read_delays(env, value, options);
    }
    if (name == "ca_file") {
      return read_text_option(env, value, "ca_file", &options->ca_file);
    }
    if (name == "user_agent") {
      return read_text_option(env, value, "user_agent", &options->user_agent);
    }
    if (name == "time_offset_ms") {
      return read_time_offset(env, value, options);
    }
    const auto option = find_field(kNumberOptions, name);
    return option == kNumberOptions.end()
               ? kBadarg
               : read_number(env, value, &(options->*option->field),
                             invalid_option(option->name));
  });
}

ReadStatus read_endpoint(ErlNifEnv* env, ERL_NIF_TERM map,
                         const UrlPolicy& policy, Endpoint* endpoint) {
  bool has_keys = false;
  const ReadStatus status =
      read_map(env, map, [&](std::string_view name, ERL_NIF_TERM value) {
        if (name == "webhook_id") {
          const ReadStatus id =
              read_webhook_id(env, value, &endpoint->webhook_id);
          return id.ok() && endpoint->webhook_id.empty()
                     ? failed("invalid_webhook_id")
                     : id;
        }
        if (name == "url") {
          return read_url(env, value, policy, &endpoint->url);
        }
        if (name == "keys") {
          has_keys = true;
          return read_keys(env, value, endpoint);
        }
        if (name == "headers") {
          return read_headers(env, value, endpoint);
        }
        const auto limit = find_field(kEndpointLimits, name);
        if (limit == kEndpointLimits.end()) {
          return kBadarg;
        }
        return enif_is_identical(value, atoms::nil) != 0
                   ? kRead
                   : read_number(env, value, &(endpoint->*limit->field),
                                 failed("invalid_limit"));
      });
  const bool complete =
      has_keys && !endpoint->webhook_id.empty() && !endpoint->url.text.empty();
  return status.ok() && !complete ? kBadarg : status;
}

ReadStatus read_delivery(ErlNifEnv* env, ERL_NIF_TERM map,
                         std::size_t body_bytes_max, const Delivery* previous,
                         Delivery* delivery) {
  enum class Presence { kRequired, kOptional };
  ReadStatus status;
  const auto member = [&](Presence presence, ERL_NIF_TERM key, auto&& read) {
    ERL_NIF_TERM value;
    if (!status.ok()) {
      return;
    }
    if (enif_get_map_value(env, map, key, &value) != 0) {
      status = read(value);
    } else if (presence == Presence::kRequired) {
      status = kBadarg;
    }
  };
  member(Presence::kRequired, atoms::id, [&](ERL_NIF_TERM id) {
    return read_delivery_id(env, id, &delivery->id);
  });
  member(Presence::kRequired, atoms::webhook_id, [&](ERL_NIF_TERM id) {
    return read_webhook_id(env, id, &delivery->webhook_id);
  });
  member(Presence::kRequired, atoms::body, [&](ERL_NIF_TERM body) {
    return read_body(env, body, body_bytes_max, previous, delivery);
  });
  member(Presence::kOptional, atoms::attempts, [&](ERL_NIF_TERM count) {
    return read_number(env, count, &delivery->attempts);
  });
  member(Presence::kOptional, atoms::schedule_from, [&](ERL_NIF_TERM count) {
    return read_number(env, count, &delivery->schedule_from);
  });
  member(Presence::kOptional, atoms::next_at_ms,
         [&](ERL_NIF_TERM due) { return read_due(env, due, delivery); });
  member(Presence::kOptional, atoms::manual,
         [&](ERL_NIF_TERM flag) { return read_flag(flag, &delivery->manual); });
  member(Presence::kOptional, atoms::retry,
         [&](ERL_NIF_TERM flag) { return read_flag(flag, &delivery->retry); });
  return status;
}

}  // namespace webhooks::nif
