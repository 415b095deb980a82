// Purpose: engine options, endpoints and deliveries from terms.
// Ownership: results are plain values. No term is kept.
// Thread: any scheduler.
#pragma once

#include <cstddef>

#include "nif/nif_read.hpp"
#include "webhooks/delivery.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {

inline constexpr std::size_t kWebhookIdBytesMax = 255;
inline constexpr std::size_t kDeliveryIdBytesMax = 255;

ReadStatus read_engine_options(ErlNifEnv* env, ERL_NIF_TERM map,
                               EngineOptions* options);
ReadStatus read_endpoint(ErlNifEnv* env, ERL_NIF_TERM map,
                         const UrlPolicy& policy, Endpoint* endpoint);
// `previous` is the delivery read before. An equal body is shared with it.
ReadStatus read_delivery(ErlNifEnv* env, ERL_NIF_TERM map,
                         std::size_t body_bytes_max, const Delivery* previous,
                         Delivery* delivery);

}  // namespace webhooks::nif
