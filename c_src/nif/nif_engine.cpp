#include "nif/nif_support.hpp"

namespace webhooks::nif {

WEBHOOKS_NIF(nif_engine_start) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_put_endpoint) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_delete_endpoint) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_submit) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_run_once) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_stats) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

WEBHOOKS_NIF(nif_engine_stop) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return make_error(env, "not_implemented");
}

bool open_engine_resource(ErlNifEnv*, ErlNifResourceFlags) noexcept {
  return true;
}
void park_engines(int) noexcept {}

}  // namespace webhooks::nif
