// Purpose: the atoms of this library that are needed for every delivery, made
// once.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

namespace webhooks::nif {

// clang-format off
#define WEBHOOKS_ATOMS(X)                                                 \
  X(id) X(webhook_id) X(body) X(attempts) X(schedule_from) X(next_at_ms)  \
  X(manual) X(retry) X(delivery_id) X(number) X(state) X(status)          \
  X(detail) X(started_at_ms) X(dns_us) X(connect_us) X(tls_us)            \
  X(first_byte_us) X(total_us) X(remote_ip) X(response_headers)           \
  X(response_body) X(response_truncated) X(gone) X(delivered) X(pending)  \
  X(parked) X(failed) X(cancelled) X(created_at_ms) X(signed_at_s)
// clang-format on

namespace atoms {
#define X(name) inline ERL_NIF_TERM name;
WEBHOOKS_ATOMS(X)
#undef X
inline ERL_NIF_TERM struct_key;      // __struct__
inline ERL_NIF_TERM attempt_module;  // Plausible.Webhooks.Attempt
}  // namespace atoms

// Only the first call writes, as in create_basic_atoms.
inline void create_atoms(ErlNifEnv* env) noexcept {
  [[maybe_unused]] static const bool created = [env] {
#define X(name) atoms::name = enif_make_atom(env, #name);
    WEBHOOKS_ATOMS(X)
#undef X
    atoms::struct_key = enif_make_atom(env, "__struct__");
    atoms::attempt_module =
        enif_make_atom(env, "Elixir.Plausible.Webhooks.Attempt");
    return true;
  }();
}

}  // namespace webhooks::nif
