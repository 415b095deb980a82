// Purpose: engine options, endpoints, deliveries and attempts from terms and
// back.
// Ownership: results are plain values; no term is kept.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/delivery.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {

// Outcome of reading a map: `badarg` for a wrong type or an unknown key,
// otherwise a reason out of a fixed set; an empty reason is success.
struct ReadStatus {
  bool badarg = false;
  std::string_view reason;
  // For `invalid_option`: which. Static storage.
  std::string_view option;
  bool ok() const noexcept { return !badarg && reason.empty(); }
};

inline constexpr std::size_t kWebhookIdBytesMax = 255;
inline constexpr std::size_t kDeliveryIdBytesMax = 255;

// --- nif_engine_terms.cpp
ReadStatus read_engine_options(ErlNifEnv* env, ERL_NIF_TERM map,
                               EngineOptions* options);
ReadStatus read_endpoint(ErlNifEnv* env, ERL_NIF_TERM map,
                         const UrlPolicy& policy, Endpoint* endpoint);
// `previous` is the delivery read before: the same binary is shared with it.
ReadStatus read_delivery(ErlNifEnv* env, ERL_NIF_TERM map,
                         std::size_t body_bytes_max, const Delivery* previous,
                         Delivery* delivery);

// --- nif_engine_reports.cpp
ERL_NIF_TERM attempt_term(ErlNifEnv* env, const Attempt& attempt);
ERL_NIF_TERM stats_term(ErlNifEnv* env, const EngineStats& stats);

}  // namespace webhooks::nif
