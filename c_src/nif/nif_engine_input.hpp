// Purpose: engine options, endpoints and deliveries from terms.
// Ownership: results are plain values. No term is kept.
// Thread: any scheduler.
#pragma once

#include <cstddef>
#include <string>

#include "nif/nif_read.hpp"
#include "webhooks/delivery.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {

EngineOptions read_engine_options(ErlNifEnv* env, ERL_NIF_TERM map);
Endpoint read_endpoint(ErlNifEnv* env, ERL_NIF_TERM map,
                       const UrlPolicy& policy);
// `previous` is the delivery read before. An equal body is shared with it.
Delivery read_delivery(ErlNifEnv* env, ERL_NIF_TERM map,
                       std::size_t body_bytes_max, const Delivery* previous);
std::string read_webhook_id(ErlNifEnv* env, ERL_NIF_TERM term);

}  // namespace webhooks::nif
