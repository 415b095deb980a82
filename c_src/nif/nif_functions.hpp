// Purpose: the NIFs of Plausible.Webhooks.Native, and what its library's load
// calls, each by the file that defines it.
#pragma once

#include <erl_nif.h>

namespace webhooks::nif {

#define WEBHOOKS_NIF(name)                           \
  ERL_NIF_TERM name([[maybe_unused]] ErlNifEnv* env, \
                    [[maybe_unused]] int argc,       \
                    [[maybe_unused]] const ERL_NIF_TERM argv[])

// nif_json_encode.cpp, nif_json_decode.cpp
WEBHOOKS_NIF(nif_encode);
WEBHOOKS_NIF(nif_decode);
// nif_signature.cpp
WEBHOOKS_NIF(nif_sign);
WEBHOOKS_NIF(nif_verify);
WEBHOOKS_NIF(nif_generate_secret);
// nif_policy.cpp, nif_headers.cpp
WEBHOOKS_NIF(nif_check_url);
WEBHOOKS_NIF(nif_check_headers);
// nif_engine.cpp
WEBHOOKS_NIF(nif_engine_start);
WEBHOOKS_NIF(nif_put_endpoint);
WEBHOOKS_NIF(nif_delete_endpoint);
WEBHOOKS_NIF(nif_submit);
WEBHOOKS_NIF(nif_run_once);
WEBHOOKS_NIF(nif_slow_slices);
WEBHOOKS_NIF(nif_stats);
WEBHOOKS_NIF(nif_engine_stop);
bool open_engine_resource(ErlNifEnv* env) noexcept;
// At exit: stops and wakes every loop.
void park_engines() noexcept;

}  // namespace webhooks::nif
