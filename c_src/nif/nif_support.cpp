#include "nif/nif_support.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace webhooks::nif {

void create_basic_atoms(ErlNifEnv* env) noexcept {
  [[maybe_unused]] static const bool created = [env] {
    atoms::ok = enif_make_atom(env, "ok");
    atoms::error = enif_make_atom(env, "error");
    atoms::nil = enif_make_atom(env, "nil");
    atoms::true_ = enif_make_atom(env, "true");
    atoms::false_ = enif_make_atom(env, "false");
    return true;
  }();
}

// Called inside a catch block.
ERL_NIF_TERM term_of_exception(ErlNifEnv* env) noexcept {
  try {
    throw;
  } catch (const BadArgument&) {
    return enif_make_badarg(env);
  } catch (const Refused& refused) {
    return refused.where.empty() ? make_error(env, refused.reason)
                                 : make_error(env, refused.reason,
                                              static_atom(env, refused.where));
  } catch (const std::bad_alloc&) {
    return make_error(env, "system_limit");
  } catch (...) {
    return make_error(env, "internal");
  }
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
  // The new thread inherits the mask. The VM's signals are for its own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  static_cast<void>(pthread_create(&thread, &attributes, work, argument));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
}

}  // namespace webhooks::nif
