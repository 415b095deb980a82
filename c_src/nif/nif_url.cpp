#include "nif/nif_support.hpp"

namespace webhooks::nif {

WEBHOOKS_NIF(nif_check_url) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

}  // namespace webhooks::nif
