// Purpose: check_headers for the BEAM.
// Ownership: nothing outlives a call.
// Thread: any scheduler.
#include <array>

#include "nif/nif_support.hpp"
#include "webhooks/headers.hpp"

namespace webhooks::nif {
namespace {

std::optional<HeaderView> as_header(ErlNifEnv* env,
                                    ERL_NIF_TERM term) noexcept {
  int arity = 0;
  const ERL_NIF_TERM* pair = nullptr;
  if (enif_get_tuple(env, term, &arity, &pair) == 0 || arity != 2) {
    return std::nullopt;
  }
  const auto name = as_binary(env, pair[0]);
  const auto value = as_binary(env, pair[1]);
  if (!name || !value) {
    return std::nullopt;
  }
  return HeaderView{*name, *value};
}

}  // namespace

WEBHOOKS_NIF(nif_check_headers) {
  static_cast<void>(argc);
  return guard(env, [&] {
    // One more than may be: enough to see that there are too many.
    std::array<HeaderView, kHeadersMax + 1> headers;
    std::size_t count = 0;
    ERL_NIF_TERM list = argv[0];
    ERL_NIF_TERM head;
    while (count < headers.size() &&
           enif_get_list_cell(env, list, &head, &list) != 0) {
      const auto header = as_header(env, head);
      if (!header) {
        return enif_make_badarg(env);
      }
      headers[count++] = *header;
    }
    if (enif_is_list(env, list) == 0) {
      return enif_make_badarg(env);
    }
    const auto problem =
        check_headers(std::span<const HeaderView>(headers.data(), count));
    if (!problem) {
      return atoms::ok;
    }
    return enif_make_tuple2(
        env, atoms::error,
        enif_make_tuple2(env, static_atom(env, problem->reason),
                         enif_make_uint64(env, problem->index)));
  });
}

}  // namespace webhooks::nif
