// Purpose: reads lists and maps of terms with one kind of outcome.
// Ownership: no term is kept.
// Thread: any scheduler.
#pragma once

#include <array>
#include <limits>
#include <string_view>

#include "nif/nif_support.hpp"

namespace webhooks::nif {

// `badarg`: a wrong type or an unknown key. Otherwise `reason` is one of a
// fixed set, empty for success, and `option` names the option that
// `invalid_option` is about. Both in static storage.
struct ReadStatus {
  bool badarg = false;
  std::string_view reason;
  std::string_view option;
  bool ok() const noexcept { return !badarg && reason.empty(); }
};

inline constexpr ReadStatus kRead{};
inline constexpr ReadStatus kBadarg{true, {}, {}};
inline ReadStatus failed(std::string_view reason) noexcept {
  return {false, reason, {}};
}
inline ReadStatus invalid_option(std::string_view option) noexcept {
  return {false, "invalid_option", option};
}

inline ERL_NIF_TERM error_term(ErlNifEnv* env,
                               const ReadStatus& status) noexcept {
  if (status.badarg) {
    return enif_make_badarg(env);
  }
  return status.option.empty()
             ? make_error(env, status.reason)
             : make_error(env, status.reason, static_atom(env, status.option));
}

// Calls `each(element)` until it fails.
template <class Each>
ReadStatus read_list(ErlNifEnv* env, ERL_NIF_TERM list, Each&& each) {
  ERL_NIF_TERM head;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    const ReadStatus status = each(head);
    if (!status.ok()) {
      return status;
    }
  }
  return enif_is_empty_list(env, list) != 0 ? kRead : kBadarg;
}

// Calls `each(key, value)` until it fails. `key` is empty if it is not an atom
// of at most 63 Latin-1 characters.
template <class Each>
ReadStatus read_map(ErlNifEnv* env, ERL_NIF_TERM map, Each&& each) {
  ErlNifMapIterator iterator;
  if (enif_map_iterator_create(env, map, &iterator,
                               ERL_NIF_MAP_ITERATOR_FIRST) == 0) {
    return kBadarg;
  }
  struct Destroy {
    ErlNifEnv* env;
    ErlNifMapIterator* iterator;
    ~Destroy() { enif_map_iterator_destroy(env, iterator); }
  } const destroy{env, &iterator};
  ERL_NIF_TERM key;
  ERL_NIF_TERM value;
  std::array<char, 64> name;
  while (enif_map_iterator_get_pair(env, &iterator, &key, &value) != 0) {
    const int size =
        enif_get_atom(env, key, name.data(), static_cast<unsigned>(name.size()),
                      ERL_NIF_LATIN1);
    const ReadStatus status = each(
        std::string_view(name.data(),
                         size > 0 ? static_cast<std::size_t>(size) - 1 : 0),
        value);
    if (!status.ok()) {
      return status;
    }
    enif_map_iterator_next(env, &iterator);
  }
  return kRead;
}

inline std::optional<std::uint32_t> as_uint32(ErlNifEnv* env,
                                              ERL_NIF_TERM term) noexcept {
  const auto value = as_int64(env, term);
  if (!value || *value < 0 ||
      *value > std::numeric_limits<std::uint32_t>::max()) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(*value);
}

inline ReadStatus read_flag(ERL_NIF_TERM term, bool* flag) noexcept {
  const auto value = as_bool(term);
  *flag = value.value_or(*flag);
  return value ? kRead : kBadarg;
}

}  // namespace webhooks::nif
