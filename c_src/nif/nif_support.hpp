// Purpose: what both NIF libraries need: basic atoms, the error wall, and
// helpers between terms and C++.
// Ownership: atoms live as long as the VM. Nothing here owns terms.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

namespace webhooks::nif {

namespace atoms {
inline ERL_NIF_TERM ok;
inline ERL_NIF_TERM error;
inline ERL_NIF_TERM nil;
inline ERL_NIF_TERM true_;
inline ERL_NIF_TERM false_;
}  // namespace atoms

// Makes the basic atoms. An upgrade runs while dirty schedulers read them, so
// only the first call writes.
void create_basic_atoms(ErlNifEnv* env) noexcept;

// The exceptions that a NIF throws to its error wall. Neither reaches the core.
struct BadArgument {};  // a wrong type: raises ArgumentError
struct Refused {        // returns {:error, reason} or {:error, {reason, where}}
  std::string_view reason;  // both in static storage
  std::string_view where = {};
};

inline void expect(bool holds) {
  if (!holds) {
    throw BadArgument();
  }
}
template <class T>
T expected(std::optional<T> value) {
  expect(value.has_value());
  return *std::move(value);
}

// The error wall: an exception that leaves a NIF aborts the VM.
ERL_NIF_TERM term_of_exception(ErlNifEnv* env) noexcept;
template <class F>
ERL_NIF_TERM guard(ErlNifEnv* env, F&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return term_of_exception(env);
  }
}

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

ERL_NIF_TERM make_binary(ErlNifEnv* env, std::string_view bytes);

// `terms`: a std::vector, or anything with data() and size().
template <class Terms>
ERL_NIF_TERM make_list(ErlNifEnv* env, const Terms& terms) noexcept {
  return enif_make_list_from_array(env, terms.data(),
                                   static_cast<unsigned>(terms.size()));
}

using Pair = std::pair<ERL_NIF_TERM, ERL_NIF_TERM>;
template <std::size_t Count>
ERL_NIF_TERM make_map(ErlNifEnv* env, const Pair (&pairs)[Count]) noexcept {
  std::array<ERL_NIF_TERM, Count> keys;
  std::array<ERL_NIF_TERM, Count> values;
  for (std::size_t i = 0; i < Count; ++i) {
    keys[i] = pairs[i].first;
    values[i] = pairs[i].second;
  }
  ERL_NIF_TERM map = atoms::nil;
  enif_make_map_from_arrays(env, keys.data(), values.data(), Count, &map);
  return map;
}

inline bool is_nil(ERL_NIF_TERM term) noexcept {
  return enif_is_identical(term, atoms::nil) != 0;
}
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
