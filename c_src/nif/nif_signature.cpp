#include "nif/nif_support.hpp"

namespace webhooks::nif {

WEBHOOKS_NIF(nif_sign) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_verify) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_generate_secret) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_generate_keypair) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

bool load_signature(ErlNifEnv*) noexcept { return true; }

}  // namespace webhooks::nif
