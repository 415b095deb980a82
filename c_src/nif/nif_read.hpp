// Purpose: reads lists, maps and numbers of terms. A wrong type throws
// BadArgument.
// Ownership: no term is kept.
// Thread: any scheduler.
#pragma once

#include <array>
#include <limits>
#include <string_view>

#include "nif/nif_support.hpp"
#include "webhooks/result.hpp"

namespace webhooks::nif {

// Calls `each(element)` until it returns false.
template <class Each>
void for_each_element(ErlNifEnv* env, ERL_NIF_TERM list, Each&& each) {
  ERL_NIF_TERM head;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    if (!each(head)) {
      return;
    }
  }
  expect(enif_is_empty_list(env, list) != 0);
}

// Calls `each(key, value)`. `key` is empty if it is not an atom of at most 63
// Latin-1 characters.
template <class Each>
void for_each_entry(ErlNifEnv* env, ERL_NIF_TERM map, Each&& each) {
  ErlNifMapIterator iterator;
  expect(enif_map_iterator_create(env, map, &iterator,
                                  ERL_NIF_MAP_ITERATOR_FIRST) != 0);
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
    each(std::string_view(name.data(),
                          size > 0 ? static_cast<std::size_t>(size) - 1 : 0),
         value);
    enif_map_iterator_next(env, &iterator);
  }
}

// `out_of_range` is thrown for an integer that does not fit.
template <class Exception>
std::uint32_t to_uint32(ErlNifEnv* env, ERL_NIF_TERM term,
                        const Exception& out_of_range) {
  const auto value = as_int64(env, term);
  if (value && *value >= 0 &&
      *value <= std::numeric_limits<std::uint32_t>::max()) {
    return static_cast<std::uint32_t>(*value);
  }
  expect(enif_term_type(env, term) == ERL_NIF_TERM_TYPE_INTEGER);
  throw out_of_range;
}

// What the core returns, or its reason as an error of the NIF.
template <class T>
T value_of(Result<T> result) {
  if (!result.ok()) {
    throw Refused{result.error().reason};
  }
  return std::move(result).value();
}

}  // namespace webhooks::nif
