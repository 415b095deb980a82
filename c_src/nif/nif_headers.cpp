#include "nif/nif_headers.hpp"

#include "nif/nif_functions.hpp"

namespace webhooks::nif {

std::vector<HeaderView> read_headers(ErlNifEnv* env, ERL_NIF_TERM list) {
  std::vector<HeaderView> headers;
  for_each_element(env, list, [&](ERL_NIF_TERM item) {
    const ERL_NIF_TERM* pair = as_pair(env, item);
    expect(pair != nullptr);
    headers.emplace_back(expected(as_binary(env, pair[0])),
                         expected(as_binary(env, pair[1])));
    return headers.size() <= kHeadersMax;
  });
  return headers;
}

WEBHOOKS_NIF(nif_check_headers) {
  return guard(env, [&] {
    const auto problem = check_headers(read_headers(env, argv[0]));
    return problem ? make_error(env, problem->reason,
                                enif_make_uint64(env, problem->index))
                   : atoms::ok;
  });
}

}  // namespace webhooks::nif
