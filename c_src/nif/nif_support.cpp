#include "nif/nif_support.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstring>

namespace webhooks::nif {

namespace atoms {
ERL_NIF_TERM ok;
ERL_NIF_TERM error;
ERL_NIF_TERM nil;
ERL_NIF_TERM true_;
ERL_NIF_TERM false_;
}  // namespace atoms

void create_basic_atoms(ErlNifEnv* env) noexcept {
  static const bool created = [env] {
    atoms::ok = enif_make_atom(env, "ok");
    atoms::error = enif_make_atom(env, "error");
    atoms::nil = enif_make_atom(env, "nil");
    atoms::true_ = enif_make_atom(env, "true");
    atoms::false_ = enif_make_atom(env, "false");
    return true;
  }();
  static_cast<void>(created);
}

ERL_NIF_TERM make_binary(ErlNifEnv* env, std::string_view bytes) {
  ERL_NIF_TERM term;
  unsigned char* data = enif_make_new_binary(env, bytes.size(), &term);
  if (!bytes.empty()) {
    std::memcpy(data, bytes.data(), bytes.size());
  }
  return term;
}

void consume_us(ErlNifEnv* env, std::size_t us) noexcept {
  if (enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER) {
    const std::size_t percent = std::clamp<std::size_t>(us / 10, 1, 100);
    enif_consume_timeslice(env, static_cast<int>(percent));
  }
}

void run_detached(void* (*work)(void*), void* argument) noexcept {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) {
    return;
  }
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // A TLS shutdown needs more than musl's default.
  constexpr std::size_t kStackBytes = 512UL * 1024;
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_t thread;
  static_cast<void>(pthread_create(&thread, &attributes, work, argument));
  pthread_attr_destroy(&attributes);
}

}  // namespace webhooks::nif
