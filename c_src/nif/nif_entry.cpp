// Purpose: the NIF table and the library's life: load, upgrade, unload.
// Thread: load and upgrade run on one scheduler at a time, before any NIF of
// the instance; unload of an old instance may run while a new one is live.
#include <curl/curl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <cstdlib>

#include "nif/nif_support.hpp"

namespace webhooks::nif {
namespace {

// Raised whenever resource layouts or the load_info contract change: an
// upgrade across it is refused instead of reinterpreting live memory.
constexpr int kAbi = 1;
constexpr int kParkWaitMs = 2000;

// atexit is last-in-first-out: registered after OpenSSL's own handler, this
// one runs before it, so that nobody is inside OpenSSL when its tables go.
void at_exit() noexcept {
  park_engines(kParkWaitMs);
  ExitGate::close(kParkWaitMs);
}

bool first_load() noexcept {
  static std::atomic<bool> done{false};
  if (done.exchange(true)) {
    return true;
  }
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return false;
  }
  // Any OpenSSL call that needs its tables registers its atexit handler now.
  if (OPENSSL_init_crypto(0, nullptr) != 1) {
    return false;
  }
  return std::atexit(at_exit) == 0;
}

// The headers we were built with and the library we run with may differ.
bool curl_is_usable() noexcept {
  const curl_version_info_data* info = curl_version_info(CURLVERSION_NOW);
  return info->version_num >= 0x075500 && info->ssl_version != nullptr &&
         (info->features & CURL_VERSION_THREADSAFE) != 0;
}

int open_instance(ErlNifEnv* env, ERL_NIF_TERM load_info,
                  ErlNifResourceFlags flags) noexcept {
  int abi = 0;
  if (enif_get_int(env, load_info, &abi) == 0 || abi != kAbi) {
    return 1;
  }
  if (!curl_is_usable()) {
    return 2;
  }
  if (!first_load()) {
    return 3;
  }
  atoms::create(env);
  load_json(env);
  if (!load_signature(env)) {
    return 4;
  }
  if (!open_engine_resource(env, flags)) {
    return 5;
  }
  return 0;
}

int load(ErlNifEnv* env, void** /*priv*/, ERL_NIF_TERM info) noexcept {
  return open_instance(env, info, ERL_NIF_RT_CREATE);
}

int upgrade(ErlNifEnv* env, void** /*priv*/, void** /*old_priv*/,
            ERL_NIF_TERM info) noexcept {
  return open_instance(env, info,
                       static_cast<ErlNifResourceFlags>(ERL_NIF_RT_CREATE |
                                                        ERL_NIF_RT_TAKEOVER));
}

// Called for the old instance while the new one shares this DSO: nothing that
// is process-wide may be taken down here.
void unload(ErlNifEnv* /*env*/, void* /*priv*/) noexcept {}

ErlNifFunc functions[] = {
    {"encode", 1, nif_encode, 0},
    {"decode", 1, nif_decode, 0},
    {"sign", 4, nif_sign, 0},
    {"verify", 7, nif_verify, 0},
    {"generate_secret", 0, nif_generate_secret, 0},
    {"generate_keypair", 0, nif_generate_keypair, 0},
    {"check_url", 2, nif_check_url, 0},
    {"check_headers", 1, nif_check_headers, 0},
    {"engine_start", 1, nif_engine_start, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"put_endpoint", 2, nif_put_endpoint, 0},
    {"delete_endpoint", 2, nif_delete_endpoint, 0},
    {"submit", 2, nif_submit, 0},
    {"run_once", 2, nif_run_once, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"stats", 1, nif_stats, 0},
    {"engine_stop", 2, nif_engine_stop, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

}  // namespace
}  // namespace webhooks::nif

ERL_NIF_INIT(Elixir.Plausible.Webhooks.Native, webhooks::nif::functions,
             webhooks::nif::load, nullptr, webhooks::nif::upgrade,
             webhooks::nif::unload)
