// Purpose: what both NIF libraries need: basic atoms, the exception wall, and
// helpers between terms and C++.
// Ownership: atoms live as long as the VM. Nothing here owns terms.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <string_view>

namespace webhooks::nif {

namespace atoms {
extern ERL_NIF_TERM ok;
extern ERL_NIF_TERM error;
extern ERL_NIF_TERM nil;
extern ERL_NIF_TERM true_;
extern ERL_NIF_TERM false_;
}  // namespace atoms

// Makes the basic atoms. An upgrade runs while dirty schedulers read them, so
// only the first call writes.
void create_basic_atoms(ErlNifEnv* env) noexcept;

// Only for names out of the code's fixed sets (error reasons, keys), never for
// outside data: the atom table is finite.
inline ERL_NIF_TERM static_atom(ErlNifEnv* env,
                                std::string_view name) noexcept {
  return enif_make_atom_len(env, name.data(), name.size());
}

inline ERL_NIF_TERM make_ok(ErlNifEnv* env, ERL_NIF_TERM value) noexcept {
  return enif_make_tuple2(env, atoms::ok, value);
}
inline ERL_NIF_TERM make_error(ErlNifEnv* env,
                               std::string_view reason) noexcept {
  return enif_make_tuple2(env, atoms::error, static_atom(env, reason));
}
// {:error, {reason, where}}
inline ERL_NIF_TERM make_error(ErlNifEnv* env, std::string_view reason,
                               ERL_NIF_TERM where) noexcept {
  return enif_make_tuple2(
      env, atoms::error,
      enif_make_tuple2(env, static_atom(env, reason), where));
}

// The exception wall: an exception that leaves a NIF aborts the VM. Bad input
// raises none, so what arrives here is bad_alloc or a bug.
template <class F>
ERL_NIF_TERM guard(ErlNifEnv* env, F&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return make_error(env, "system_limit");
  } catch (...) {
    return make_error(env, "internal");
  }
}

ERL_NIF_TERM make_binary(ErlNifEnv* env, std::string_view bytes);

// A view into a binary term, valid until the NIF returns.
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
  return value;
}
inline std::optional<bool> as_bool(ERL_NIF_TERM term) noexcept {
  const bool is_true = enif_is_identical(term, atoms::true_) != 0;
  if (is_true || enif_is_identical(term, atoms::false_) != 0) {
    return is_true;
  }
  return std::nullopt;
}
// The elements of a pair; nullptr for any other term.
inline const ERL_NIF_TERM* as_pair(ErlNifEnv* env, ERL_NIF_TERM term) noexcept {
  int arity = 0;
  const ERL_NIF_TERM* elements = nullptr;
  return enif_get_tuple(env, term, &arity, &elements) != 0 && arity == 2
             ? elements
             : nullptr;
}

// Tells a normal scheduler how much of its time slice, about a millisecond, the
// call has used.
void consume_us(ErlNifEnv* env, std::size_t us) noexcept;

// Runs `work` in a detached thread, for what a destructor has no time for. If
// no thread can be started, `work` does not run and `argument` leaks.
void run_detached(void* (*work)(void*), void* argument) noexcept;

}  // namespace webhooks::nif
