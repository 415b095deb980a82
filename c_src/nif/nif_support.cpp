#include "nif/nif_support.hpp"

#include <pthread.h>

#include <chrono>
#include <thread>

namespace webhooks::nif {

namespace atoms {
#define X(name) ERL_NIF_TERM name;
ERL_NIF_TERM true_;
ERL_NIF_TERM false_;
ERL_NIF_TERM struct_key;
ERL_NIF_TERM attempt_module;
WEBHOOKS_ATOMS(X)
#undef X

void create(ErlNifEnv* env) noexcept {
#define X(name) name = enif_make_atom(env, #name);
  true_ = enif_make_atom(env, "true");
  false_ = enif_make_atom(env, "false");
  struct_key = enif_make_atom(env, "__struct__");
  attempt_module = enif_make_atom(env, "Elixir.Plausible.Webhooks.Attempt");
  WEBHOOKS_ATOMS(X)
#undef X
}
}  // namespace atoms

namespace {
// Bit 31: closed. Lower bits: how many are inside. Trivial destructors only:
// static destruction runs while other threads still look at these.
constexpr std::uint32_t kClosed = 1U << 31;
std::atomic<std::uint32_t> gate_state{0};
}  // namespace

bool ExitGate::enter() noexcept {
  const std::uint32_t before =
      gate_state.fetch_add(1, std::memory_order_acq_rel);
  if ((before & kClosed) != 0) {
    gate_state.fetch_sub(1, std::memory_order_acq_rel);
    return false;
  }
  return true;
}

void ExitGate::leave() noexcept {
  gate_state.fetch_sub(1, std::memory_order_acq_rel);
}

bool ExitGate::closed() noexcept {
  return (gate_state.load(std::memory_order_acquire) & kClosed) != 0;
}

void ExitGate::close(int wait_ms) noexcept {
  gate_state.fetch_or(kClosed, std::memory_order_acq_rel);
  for (int waited = 0; waited < wait_ms; ++waited) {
    if ((gate_state.load(std::memory_order_acquire) & ~kClosed) == 0) {
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void run_detached(void* (*work)(void*), void* argument) noexcept {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) {
    return;
  }
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // TLS shutdowns on a libc with small default stacks.
  constexpr std::size_t kStackBytes = 512UL * 1024;
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_t thread;
  static_cast<void>(pthread_create(&thread, &attributes, work, argument));
  pthread_attr_destroy(&attributes);
}

ERL_NIF_TERM make_binary(ErlNifEnv* env, std::string_view bytes) {
  ERL_NIF_TERM term;
  unsigned char* data = enif_make_new_binary(env, bytes.size(), &term);
  if (!bytes.empty()) {
    std::memcpy(data, bytes.data(), bytes.size());
  }
  return term;
}

std::optional<ERL_NIF_TERM> map_get(ErlNifEnv* env, ERL_NIF_TERM map,
                                    const char* key) noexcept {
  ERL_NIF_TERM value;
  ERL_NIF_TERM atom;
  if (enif_make_existing_atom(env, key, &atom, ERL_NIF_LATIN1) == 0) {
    return std::nullopt;
  }
  if (enif_get_map_value(env, map, atom, &value) == 0) {
    return std::nullopt;
  }
  return value;
}

}  // namespace webhooks::nif
