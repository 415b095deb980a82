// Purpose: reads the policy map of check_url and of the engine's options, so
// that saving and sending judge by the same rules.
// Ownership: the result is a plain value. No term is kept.
// Thread: any scheduler.
#pragma once

#include "nif/nif_read.hpp"
#include "webhooks/url.hpp"

namespace webhooks::nif {

// The keys, all optional: `https_only` (true), `allow_private` (false), `allow`
// (a list of CIDR binaries; empty), `ports` (a list of 1 to 65535; empty: all
// but the bad ones). Refusals: `invalid_cidr`, `too_many_entries` (more than
// 256 blocks or ports).
UrlPolicy read_policy(ErlNifEnv* env, ERL_NIF_TERM map);

}  // namespace webhooks::nif
