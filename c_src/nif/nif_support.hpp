// Purpose: what every NIF file needs: the atom table, the exception wall, the
// exit gate, and small helpers from terms to C++ and back.
// Ownership: atoms live as long as the VM; nothing here owns terms.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "webhooks/result.hpp"

namespace webhooks::nif {

// Every atom we ever return or compare with. Never made from outside data:
// the atom table is finite. clang-format has no layout for it that it keeps.
// clang-format off
#define WEBHOOKS_ATOMS(X)                                                 \
  X(ok) X(error) X(nil) X(undefined) X(id) X(webhook_id) X(body)          \
  X(attempts) X(schedule_from) X(next_at_ms) X(manual) X(retry)           \
  X(delivery_id) X(number) X(state) X(status) X(detail) X(started_at_ms)  \
  X(dns_us) X(connect_us) X(tls_us) X(first_byte_us) X(total_us)          \
  X(remote_ip) X(response_content_type) X(response_body)                  \
  X(response_truncated) X(gone) X(delivered) X(pending) X(parked)         \
  X(failed) X(cancelled)
// clang-format on

namespace atoms {
#define X(name) extern ERL_NIF_TERM name;
extern ERL_NIF_TERM true_;
extern ERL_NIF_TERM false_;
extern ERL_NIF_TERM struct_key;      // __struct__
extern ERL_NIF_TERM attempt_module;  // Plausible.Webhooks.Attempt
WEBHOOKS_ATOMS(X)
#undef X
void create(ErlNifEnv* env) noexcept;
}  // namespace atoms

// Static names (error reasons) become atoms here; only ever called with names
// out of the core's fixed sets.
inline ERL_NIF_TERM static_atom(ErlNifEnv* env,
                                std::string_view name) noexcept {
  return enif_make_atom_len(env, name.data(), name.size());
}

// exit(3) runs OpenSSL's cleanup while NIFs are still executing on other
// threads (the BEAM does not wait for them), and a HMAC on freed tables is a
// SIGSEGV. Whoever is about to touch OpenSSL or curl passes this gate; `close`
// is called from atexit, lets nobody in any more and waits a bounded time for
// those inside.
class ExitGate {
 public:
  // False: the VM is exiting, touch nothing.
  static bool enter() noexcept;
  static void leave() noexcept;
  static void close(int wait_ms) noexcept;
  static bool closed() noexcept;
};

class GatePass {
 public:
  GatePass() noexcept : inside_(ExitGate::enter()) {}
  ~GatePass() {
    if (inside_) {
      ExitGate::leave();
    }
  }
  GatePass(const GatePass&) = delete;
  GatePass& operator=(const GatePass&) = delete;
  explicit operator bool() const noexcept { return inside_; }

 private:
  bool inside_;
};

// Runs work in a thread of its own that nobody waits for: what a destructor has
// no time for. Without a thread to be had it is not run, and the argument
// leaks.
void run_detached(void* (*work)(void*), void* argument) noexcept;

// The exception wall: an exception that leaves a NIF aborts the VM. Bad input
// is not an exception here; what arrives is bad_alloc or a bug, and the caller
// gets {:error, :system_limit} or {:error, :internal}.
template <class F>
ERL_NIF_TERM guard(ErlNifEnv* env, F&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return enif_make_tuple2(env, atoms::error,
                            static_atom(env, "system_limit"));
  } catch (...) {
    return enif_make_tuple2(env, atoms::error, static_atom(env, "internal"));
  }
}

inline ERL_NIF_TERM make_ok(ErlNifEnv* env, ERL_NIF_TERM value) noexcept {
  return enif_make_tuple2(env, atoms::ok, value);
}
inline ERL_NIF_TERM make_error(ErlNifEnv* env,
                               std::string_view reason) noexcept {
  return enif_make_tuple2(env, atoms::error, static_atom(env, reason));
}

ERL_NIF_TERM make_binary(ErlNifEnv* env, std::string_view bytes);

// A view into a binary term; valid until the NIF returns. nullopt: no binary.
inline std::optional<std::string_view> as_binary(ErlNifEnv* env,
                                                 ERL_NIF_TERM term) noexcept {
  ErlNifBinary binary;
  if (enif_inspect_binary(env, term, &binary) == 0) {
    return std::nullopt;
  }
  return std::string_view(reinterpret_cast<const char*>(binary.data),
                          binary.size);
}
inline std::optional<std::int64_t> as_int64(ErlNifEnv* env,
                                            ERL_NIF_TERM term) noexcept {
  ErlNifSInt64 value = 0;
  if (enif_get_int64(env, term, &value) == 0) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(value);
}
inline std::optional<bool> as_bool(ERL_NIF_TERM term) noexcept {
  if (enif_is_identical(term, atoms::true_)) {
    return true;
  }
  if (enif_is_identical(term, atoms::false_)) {
    return false;
  }
  return std::nullopt;
}
// The value of an atom key in a map. nullopt: no map, or no such key.
std::optional<ERL_NIF_TERM> map_get(ErlNifEnv* env, ERL_NIF_TERM map,
                                    const char* key) noexcept;

// --- one declaration per NIF; the files that define them are named in front.
#define WEBHOOKS_NIF(name) \
  ERL_NIF_TERM name(ErlNifEnv* env, int argc, const ERL_NIF_TERM argv[])

// nif_json.cpp
WEBHOOKS_NIF(nif_encode);
WEBHOOKS_NIF(nif_decode);
void load_json(ErlNifEnv* env) noexcept;  // make its atoms
// nif_signature.cpp
WEBHOOKS_NIF(nif_sign);
WEBHOOKS_NIF(nif_verify);
WEBHOOKS_NIF(nif_generate_secret);
WEBHOOKS_NIF(nif_generate_keypair);
bool load_signature(ErlNifEnv* env) noexcept;  // fetch algorithms once
// nif_url.cpp
WEBHOOKS_NIF(nif_check_url);
// nif_headers.cpp
WEBHOOKS_NIF(nif_check_headers);
// nif_engine.cpp
WEBHOOKS_NIF(nif_engine_start);
WEBHOOKS_NIF(nif_put_endpoint);
WEBHOOKS_NIF(nif_delete_endpoint);
WEBHOOKS_NIF(nif_submit);
WEBHOOKS_NIF(nif_run_once);
WEBHOOKS_NIF(nif_stats);
WEBHOOKS_NIF(nif_engine_stop);
bool open_engine_resource(ErlNifEnv* env, ErlNifResourceFlags flags) noexcept;
void park_engines(int wait_ms) noexcept;  // atexit: stop and wake every loop

}  // namespace webhooks::nif
