// Purpose: reads the list of `{name, value}` headers of check_headers and of
// put_endpoint.
// Ownership: the views are valid until the NIF returns.
// Thread: any scheduler.
#pragma once

#include <vector>

#include "nif/nif_read.hpp"
#include "webhooks/headers.hpp"

namespace webhooks::nif {

// Reads views, so that sizes are judged before anything is copied, and at most
// one header too many, which check_headers refuses.
std::vector<HeaderView> read_headers(ErlNifEnv* env, ERL_NIF_TERM list);

}  // namespace webhooks::nif
