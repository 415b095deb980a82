#include "nif/nif_support.hpp"

namespace webhooks::nif {

WEBHOOKS_NIF(nif_encode) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_decode) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

}  // namespace webhooks::nif
