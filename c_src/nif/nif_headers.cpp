#include "nif/nif_headers.hpp"

#include <span>

#include "nif/nif_functions.hpp"

namespace webhooks::nif {

ReadStatus read_header_list(ErlNifEnv* env, ERL_NIF_TERM list,
                            std::vector<HeaderView>* headers) {
  return read_list(env, list, [&](ERL_NIF_TERM item) {
    const ERL_NIF_TERM* pair = as_pair(env, item);
    const auto name = pair == nullptr ? std::nullopt : as_binary(env, pair[0]);
    const auto value = pair == nullptr ? std::nullopt : as_binary(env, pair[1]);
    if (!name || !value) {
      return kBadarg;
    }
    headers->emplace_back(*name, *value);
    return headers->size() > kHeadersMax ? failed("too_many_headers") : kRead;
  });
}

WEBHOOKS_NIF(nif_check_headers) {
  return guard(env, [&] {
    std::vector<HeaderView> headers;
    if (read_header_list(env, argv[0], &headers).badarg) {
      return enif_make_badarg(env);
    }
    const auto problem = check_headers(std::span<const HeaderView>(headers));
    return problem ? make_error(env, problem->reason,
                                enif_make_uint64(env, problem->index))
                   : atoms::ok;
  });
}

}  // namespace webhooks::nif
