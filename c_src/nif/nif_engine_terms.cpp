// Purpose: what the engine is given: options, endpoints and deliveries.
// Ownership: results are plain values; no term is kept.
// Thread: any scheduler.
#include "nif/nif_engine_terms.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "nif/nif_policy.hpp"
#include "nif/nif_support.hpp"
#include "webhooks/headers.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks::nif {
namespace {

constexpr ReadStatus kBadarg{true, {}, {}};
constexpr ReadStatus kFine{};

ReadStatus failed(std::string_view reason) { return {false, reason, {}}; }
ReadStatus invalid_option(std::string_view option) {
  return {false, "invalid_option", option};
}

struct NumberOption {
  const char* name;
  std::uint32_t EngineOptions::*field;
};
constexpr std::array kNumberOptions = {
    NumberOption{"jitter_percent", &EngineOptions::jitter_percent},
    NumberOption{"park_after_ms", &EngineOptions::park_after_ms},
    NumberOption{"retry_after_max_ms", &EngineOptions::retry_after_max_ms},
    NumberOption{"timeout_ms", &EngineOptions::timeout_ms},
    NumberOption{"connect_timeout_ms", &EngineOptions::connect_timeout_ms},
    NumberOption{"lane_in_flight_max", &EngineOptions::lane_in_flight_max},
    NumberOption{"lane_rate_per_s", &EngineOptions::lane_rate_per_s},
    NumberOption{"host_in_flight_max", &EngineOptions::destination_in_flight_max},
    NumberOption{"host_rate_per_s", &EngineOptions::destination_rate_per_s},
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

std::optional<std::uint32_t> as_uint32(ErlNifEnv* env, ERL_NIF_TERM term) {
  const auto value = as_int64(env, term);
  if (!value || *value < 0 ||
      *value > std::numeric_limits<std::uint32_t>::max()) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(*value);
}

bool is_integer(ErlNifEnv* env, ERL_NIF_TERM term) {
  ErlNifSInt64 value = 0;
  if (enif_get_int64(env, term, &value) != 0) {
    return true;
  }
  // Beyond 64 bits is still an integer: out of range, not of a wrong type.
  double real = 0;
  return enif_is_number(env, term) != 0 &&
         enif_get_double(env, term, &real) == 0;
}

// The name of an atom key, at most 63 bytes; empty: no such atom.
std::string_view atom_name(ErlNifEnv* env, ERL_NIF_TERM term,
                           std::array<char, 64>& buffer) {
  const int size =
      enif_get_atom(env, term, buffer.data(),
                    static_cast<unsigned>(buffer.size()), ERL_NIF_LATIN1);
  if (size <= 0) {
    return {};
  }
  return {buffer.data(), static_cast<std::size_t>(size) - 1};
}

// Calls `each(name, value)` until it says no.
template <class Each>
ReadStatus for_each_pair(ErlNifEnv* env, ERL_NIF_TERM map, Each&& each) {
  ErlNifMapIterator iterator;
  if (enif_map_iterator_create(env, map, &iterator,
                               ERL_NIF_MAP_ITERATOR_FIRST) == 0) {
    return kBadarg;
  }
  struct Cleanup {
    ErlNifEnv* env;
    ErlNifMapIterator* iterator;
    ~Cleanup() { enif_map_iterator_destroy(env, iterator); }
  } const cleanup{env, &iterator};
  ERL_NIF_TERM key;
  ERL_NIF_TERM value;
  std::array<char, 64> buffer;
  while (enif_map_iterator_get_pair(env, &iterator, &key, &value) != 0) {
    const ReadStatus status = each(atom_name(env, key, buffer), value);
    if (!status.ok()) {
      return status;
    }
    enif_map_iterator_next(env, &iterator);
  }
  return kFine;
}

ReadStatus read_delays(ErlNifEnv* env, ERL_NIF_TERM list,
                       EngineOptions* options) {
  std::vector<std::uint32_t> delays;
  ERL_NIF_TERM head;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    if (!is_integer(env, head)) {
      return kBadarg;
    }
    const auto delay = as_uint32(env, head);
    if (!delay || delays.size() > kRetryStepsMax) {
      return invalid_option("retry_delays_ms");
    }
    delays.push_back(*delay);
  }
  if (enif_is_empty_list(env, list) == 0) {
    return kBadarg;
  }
  options->retry_delays_ms = std::move(delays);
  return kFine;
}

// Erlang's monotonic time and a fixed offset: what leaps is only the VM's own
// offset. Whoever drives is a scheduler, and may ask.
ReadStatus read_time_offset(ErlNifEnv* env, ERL_NIF_TERM term,
                            EngineOptions* options) {
  const auto offset_ms = as_int64(env, term);
  if (!offset_ms) {
    return kBadarg;
  }
  options->now_ms = [offset = *offset_ms] {
    return std::int64_t{enif_monotonic_time(ERL_NIF_MSEC)} + offset;
  };
  return kFine;
}

ReadStatus read_text_option(ErlNifEnv* env, ERL_NIF_TERM term,
                            std::string_view name, std::string* text) {
  if (enif_is_identical(term, atoms::nil)) {
    return kFine;
  }
  const auto value = as_binary(env, term);
  if (!value) {
    return kBadarg;
  }
  if (value->empty() || value->size() > 4096 ||
      value->find('\0') != std::string_view::npos) {
    return invalid_option(name);
  }
  *text = *value;
  return kFine;
}

// Printable ASCII without '.' (the signed text separates by it) and space.
bool is_delivery_id(std::string_view id) {
  return !id.empty() && id.size() <= kDeliveryIdBytesMax &&
         std::all_of(id.begin(), id.end(),
                     [](char c) { return c > ' ' && c <= '~' && c != '.'; });
}

ReadStatus read_key(ErlNifEnv* env, ERL_NIF_TERM term, Endpoint* endpoint) {
  std::optional<std::int64_t> expires_at_ms;
  int arity = 0;
  const ERL_NIF_TERM* pair = nullptr;
  ERL_NIF_TERM key = term;
  if (enif_get_tuple(env, term, &arity, &pair) != 0) {
    if (arity != 2) {
      return kBadarg;
    }
    key = pair[0];
    if (!enif_is_identical(pair[1], atoms::nil)) {
      expires_at_ms = as_int64(env, pair[1]);
      if (!expires_at_ms) {
        return kBadarg;
      }
    }
  }
  const auto text = as_binary(env, key);
  if (!text) {
    return kBadarg;
  }
  auto parsed = SigningKey::parse(*text);
  if (!parsed.ok()) {
    return failed(parsed.error().reason);
  }
  endpoint->keys.push_back({std::move(parsed).value(), expires_at_ms});
  return kFine;
}

ReadStatus read_keys(ErlNifEnv* env, ERL_NIF_TERM list, Endpoint* endpoint) {
  ERL_NIF_TERM head;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    if (endpoint->keys.size() == kSigningKeysMax) {
      return failed("too_many_keys");
    }
    const ReadStatus status = read_key(env, head, endpoint);
    if (!status.ok()) {
      return status;
    }
  }
  if (enif_is_empty_list(env, list) == 0) {
    return kBadarg;
  }
  return endpoint->keys.empty() ? failed("no_keys") : kFine;
}

ReadStatus read_headers(ErlNifEnv* env, ERL_NIF_TERM list, Endpoint* endpoint) {
  std::vector<HeaderView> headers;
  ERL_NIF_TERM head;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    int arity = 0;
    const ERL_NIF_TERM* pair = nullptr;
    if (enif_get_tuple(env, head, &arity, &pair) == 0 || arity != 2) {
      return kBadarg;
    }
    const auto name = as_binary(env, pair[0]);
    const auto value = as_binary(env, pair[1]);
    if (!name || !value) {
      return kBadarg;
    }
    if (headers.size() == kHeadersMax) {
      return failed("too_many_headers");
    }
    headers.emplace_back(*name, *value);
    endpoint->headers.emplace_back(*name, *value);
  }
  if (enif_is_empty_list(env, list) == 0) {
    return kBadarg;
  }
  const auto refused = check_headers(std::span<const HeaderView>(headers));
  return refused ? failed(refused->reason) : kFine;
}

// A positive number; 0 and nil mean the engine's default.
ReadStatus read_limit(ErlNifEnv* env, ERL_NIF_TERM term, std::uint32_t* limit) {
  if (enif_is_identical(term, atoms::nil)) {
    return kFine;
  }
  if (!is_integer(env, term)) {
    return kBadarg;
  }
  const auto value = as_uint32(env, term);
  if (!value) {
    return failed("invalid_limit");
  }
  *limit = *value;
  return kFine;
}

ReadStatus read_count(ErlNifEnv* env, ERL_NIF_TERM term, std::uint32_t* count) {
  const auto value = as_uint32(env, term);
  if (!value) {
    return kBadarg;
  }
  *count = *value;
  return kFine;
}

ReadStatus read_flag(ERL_NIF_TERM term, bool* flag) {
  const auto value = as_bool(term);
  if (!value) {
    return kBadarg;
  }
  *flag = *value;
  return kFine;
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
  // A fan-out hands over the same binary again and again; comparing is cheaper
  // than keeping another copy for as long as the delivery waits.
  if (previous != nullptr && previous->body && *previous->body == *body) {
    delivery->body = previous->body;
  } else {
    delivery->body = std::make_shared<const std::string>(*body);
  }
  return kFine;
}

ReadStatus read_required(ErlNifEnv* env, ERL_NIF_TERM map, ERL_NIF_TERM key,
                         ERL_NIF_TERM* value) {
  return enif_get_map_value(env, map, key, value) != 0 ? kFine : kBadarg;
}

ReadStatus read_delivery_options(ErlNifEnv* env, ERL_NIF_TERM map,
                                 Delivery* delivery) {
  ERL_NIF_TERM value;
  ReadStatus status = kFine;
  if (enif_get_map_value(env, map, atoms::attempts, &value) != 0) {
    status = read_count(env, value, &delivery->attempts);
  }
  if (status.ok() &&
      enif_get_map_value(env, map, atoms::schedule_from, &value) != 0) {
    status = read_count(env, value, &delivery->schedule_from);
  }
  if (status.ok() &&
      enif_get_map_value(env, map, atoms::next_at_ms, &value) != 0 &&
      !enif_is_identical(value, atoms::nil)) {
    const auto due = as_int64(env, value);
    if (!due) {
      return kBadarg;
    }
    delivery->due_at_ms = *due;
  }
  if (status.ok() && enif_get_map_value(env, map, atoms::manual, &value) != 0) {
    status = read_flag(value, &delivery->manual);
  }
  if (status.ok() && enif_get_map_value(env, map, atoms::retry, &value) != 0) {
    status = read_flag(value, &delivery->retry);
  }
  return status;
}

}  // namespace

ReadStatus read_engine_options(ErlNifEnv* env, ERL_NIF_TERM map,
                               EngineOptions* options) {
  return for_each_pair(
      env, map, [&](std::string_view name, ERL_NIF_TERM value) {
        if (name == "policy") {
          std::string_view reason;
          switch (parse_policy(env, value, &options->policy, &reason)) {
            case PolicyParse::kOk:
              return kFine;
            case PolicyParse::kBadarg:
              return kBadarg;
            case PolicyParse::kError:
              break;
          }
          return invalid_option("policy");
        }
        if (name == "retry_delays_ms") {
          return read_delays(env, value, options);
        }
        if (name == "ca_file") {
          return read_text_option(env, value, "ca_file", &options->ca_file);
        }
        if (name == "user_agent") {
          return read_text_option(env, value, "user_agent",
                                  &options->user_agent);
        }
        if (name == "time_offset_ms") {
          return read_time_offset(env, value, options);
        }
        for (const NumberOption& option : kNumberOptions) {
          if (name != option.name) {
            continue;
          }
          if (!is_integer(env, value)) {
            return kBadarg;
          }
          const auto number = as_uint32(env, value);
          if (!number) {
            return invalid_option(option.name);
          }
          options->*option.field = *number;
          return kFine;
        }
        return kBadarg;
      });
}

ReadStatus read_endpoint(ErlNifEnv* env, ERL_NIF_TERM map,
                         const UrlPolicy& policy, Endpoint* endpoint) {
  bool has_id = false;
  bool has_url = false;
  bool has_keys = false;
  const ReadStatus status =
      for_each_pair(env, map, [&](std::string_view name, ERL_NIF_TERM value) {
        if (name == "webhook_id") {
          const auto id = as_binary(env, value);
          if (!id) {
            return kBadarg;
          }
          if (id->empty() || id->size() > kWebhookIdBytesMax) {
            return failed("invalid_webhook_id");
          }
          endpoint->webhook_id = *id;
          has_id = true;
          return kFine;
        }
        if (name == "url") {
          const auto text = as_binary(env, value);
          if (!text) {
            return kBadarg;
          }
          auto url = check_url(*text, policy);
          if (!url.ok()) {
            return failed(url.error().reason);
          }
          endpoint->url = std::move(url).value();
          has_url = true;
          return kFine;
        }
        if (name == "keys") {
          has_keys = true;
          return read_keys(env, value, endpoint);
        }
        if (name == "headers") {
          return read_headers(env, value, endpoint);
        }
        if (name == "timeout_ms") {
          return read_limit(env, value, &endpoint->timeout_ms);
        }
        if (name == "connect_timeout_ms") {
          return read_limit(env, value, &endpoint->connect_timeout_ms);
        }
        if (name == "in_flight_max") {
          return read_limit(env, value, &endpoint->in_flight_max);
        }
        if (name == "rate_per_s") {
          return read_limit(env, value, &endpoint->rate_per_s);
        }
        return kBadarg;
      });
  if (!status.ok()) {
    return status;
  }
  return has_id && has_url && has_keys ? kFine : kBadarg;
}

ReadStatus read_delivery(ErlNifEnv* env, ERL_NIF_TERM map,
                         std::size_t body_bytes_max, const Delivery* previous,
                         Delivery* delivery) {
  ERL_NIF_TERM id;
  ERL_NIF_TERM webhook_id;
  ERL_NIF_TERM body;
  if (!read_required(env, map, atoms::id, &id).ok() ||
      !read_required(env, map, atoms::webhook_id, &webhook_id).ok() ||
      !read_required(env, map, atoms::body, &body).ok()) {
    return kBadarg;
  }
  const auto id_text = as_binary(env, id);
  const auto webhook_text = as_binary(env, webhook_id);
  if (!id_text || !webhook_text) {
    return kBadarg;
  }
  if (!is_delivery_id(*id_text)) {
    return failed("invalid_id");
  }
  if (webhook_text->size() > kWebhookIdBytesMax) {
    return failed("invalid_webhook_id");
  }
  delivery->id = *id_text;
  delivery->webhook_id = *webhook_text;
  const ReadStatus status =
      read_body(env, body, body_bytes_max, previous, delivery);
  return status.ok() ? read_delivery_options(env, map, delivery) : status;
}

}  // namespace webhooks::nif
