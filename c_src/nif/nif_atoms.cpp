#include "nif/nif_atoms.hpp"

namespace webhooks::nif {

namespace atoms {
#define X(name) ERL_NIF_TERM name;
WEBHOOKS_ATOMS(X)
#undef X
ERL_NIF_TERM struct_key;
ERL_NIF_TERM attempt_module;
}  // namespace atoms

void create_atoms(ErlNifEnv* env) noexcept {
  static const bool created = [env] {
#define X(name) atoms::name = enif_make_atom(env, #name);
    WEBHOOKS_ATOMS(X)
#undef X
    atoms::struct_key = enif_make_atom(env, "__struct__");
    atoms::attempt_module =
        enif_make_atom(env, "Elixir.Plausible.Webhooks.Attempt");
    return true;
  }();
  static_cast<void>(created);
}

}  // namespace webhooks::nif
