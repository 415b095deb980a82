// Purpose: reads the policy map of check_url and of the engine's options, so
// that saving and sending judge by the same rules.
// Ownership: the result is a plain value. No term is kept.
// Thread: any scheduler.
#pragma once

#include "nif/nif_read.hpp"
#include "webhooks/url.hpp"

namespace webhooks::nif {

// The keys, both optional: `https_only` (true), `allow` (a list of at most 256
// entries; empty). Refusals: those of AllowEntry::parse, `too_many_entries`.
UrlPolicy read_policy(ErlNifEnv* env, ERL_NIF_TERM map);

}  // namespace webhooks::nif
