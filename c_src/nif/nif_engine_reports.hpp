// Purpose: the engine's attempts and figures as terms.
// Ownership: terms are the calling NIF's.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include <vector>

#include "webhooks/delivery.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {

ERL_NIF_TERM attempt_term(ErlNifEnv* env, const Attempt& attempt);
// `[{webhook_id | nil, took_ms}]`
ERL_NIF_TERM slow_slices_term(ErlNifEnv* env,
                              const std::vector<SlowSlice>& slices);
ERL_NIF_TERM stats_term(ErlNifEnv* env, const EngineStats& stats);

}  // namespace webhooks::nif
