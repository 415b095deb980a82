// Purpose: the engine's attempts and figures as terms.
// Ownership: terms are the calling NIF's.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include "webhooks/delivery.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {

ERL_NIF_TERM attempt_term(ErlNifEnv* env, const Attempt& attempt);
ERL_NIF_TERM stats_term(ErlNifEnv* env, const EngineStats& stats);

}  // namespace webhooks::nif
