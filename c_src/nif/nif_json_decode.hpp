// Purpose: a JSON document as a term.
// Ownership: the term is the caller's.
// Thread: any scheduler.
#pragma once

#include <string_view>

#include "nif/nif_support.hpp"

namespace webhooks::nif {

// {:ok, term} | {:error, {reason, offset}}
ERL_NIF_TERM decode_json(ErlNifEnv* env, std::string_view json);

}  // namespace webhooks::nif
