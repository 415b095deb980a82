// Purpose: the NIF table and the library's life: load, upgrade, unload.
// Thread: load and upgrade run on one scheduler at a time. An upgrade runs
// while dirty schedulers execute NIFs of the old instance with the same
// globals, and so does the unload of the old one.
#include <curl/curl.h>
#include <openssl/crypto.h>

#include <cstdlib>

#include "nif/nif_atoms.hpp"
#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"
#include "nif/nif_resource.hpp"
#include "webhooks/signature.hpp"

namespace webhooks::nif {
namespace {

constexpr int kExitWaitMs = 2000;

void at_exit() noexcept {
  park_engines();
  close_exit_gate(kExitWaitMs);
}

bool prepare_process() noexcept {
  // atexit is last-in-first-out. Any OpenSSL call that needs its tables
  // registers OpenSSL's handler, so that ours, registered later, runs earlier.
  static const bool prepared =
      curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK &&
      OPENSSL_init_crypto(0, nullptr) == 1 && std::atexit(at_exit) == 0;
  return prepared;
}

// The library may be older than the headers of the build.
bool curl_is_usable() noexcept {
  const curl_version_info_data* info = curl_version_info(CURLVERSION_NOW);
  return info->version_num >= 0x075500 && info->ssl_version != nullptr &&
         (info->features & CURL_VERSION_THREADSAFE) != 0;
}

int open_library(ErlNifEnv* env) noexcept {
  if (!curl_is_usable()) {
    return 2;
  }
  if (!prepare_process()) {
    return 3;
  }
  create_basic_atoms(env);
  create_atoms(env);
  const GatePass pass;
  if (!pass || !prepare_signing()) {
    return 4;
  }
  return open_engine_resource(env) ? 0 : 5;
}

// The new instance uses the same globals, so nothing is taken down.
void unload(ErlNifEnv* /*env*/, void* /*priv*/) noexcept {}

ErlNifFunc functions[] = {
    {"encode", 1, nif_encode, 0},
    {"decode", 1, nif_decode, 0},
    {"sign", 4, nif_sign, 0},
    {"verify", 7, nif_verify, 0},
    {"generate_secret", 0, nif_generate_secret, 0},
    {"check_url", 2, nif_check_url, 0},
    {"check_headers", 1, nif_check_headers, 0},
    {"engine_start", 1, nif_engine_start, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"put_endpoint", 2, nif_put_endpoint, 0},
    {"delete_endpoint", 2, nif_delete_endpoint, 0},
    {"submit", 2, nif_submit, 0},
    {"run_once", 2, nif_run_once, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"slow_slices", 1, nif_slow_slices, 0},
    {"stats", 1, nif_stats, 0},
    {"engine_stop", 2, nif_engine_stop, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

}  // namespace
}  // namespace webhooks::nif

ERL_NIF_INIT(Elixir.Plausible.Webhooks.Native, webhooks::nif::functions,
             webhooks::nif::load<webhooks::nif::open_library>, nullptr,
             webhooks::nif::upgrade<webhooks::nif::open_library>,
             webhooks::nif::unload)
