// Purpose: check_url for the BEAM.
// Ownership: nothing outlives a call.
// Thread: any scheduler.
#include <array>

#include "nif/nif_policy.hpp"
#include "nif/nif_support.hpp"
#include "webhooks/url.hpp"

namespace webhooks::nif {
namespace {

// What a call costs, in percent of a millisecond.
constexpr int kTimeslicePercent = 2;

ERL_NIF_TERM url_map(ErlNifEnv* env, const Url& url) {
  std::array<ERL_NIF_TERM, 4> keys = {
      static_atom(env, "url"), static_atom(env, "scheme"),
      static_atom(env, "host"), static_atom(env, "port")};
  std::array<ERL_NIF_TERM, 4> values = {
      make_binary(env, url.text), make_binary(env, url.scheme),
      make_binary(env, url.host), enif_make_uint(env, url.port)};
  ERL_NIF_TERM map = atoms::nil;
  enif_make_map_from_arrays(env, keys.data(), values.data(), keys.size(), &map);
  return map;
}

}  // namespace

WEBHOOKS_NIF(nif_check_url) {
  static_cast<void>(argc);
  return guard(env, [&] {
    const auto text = as_binary(env, argv[0]);
    if (!text) {
      return enif_make_badarg(env);
    }
    UrlPolicy policy;
    std::string_view reason;
    switch (parse_policy(env, argv[1], &policy, &reason)) {
      case PolicyParse::kOk:
        break;
      case PolicyParse::kBadarg:
        return enif_make_badarg(env);
      case PolicyParse::kError:
        return make_error(env, reason);
    }
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    enif_consume_timeslice(env, kTimeslicePercent);
    const auto url = check_url(*text, policy);
    if (!url.ok()) {
      return make_error(env, url.error().reason);
    }
    return make_ok(env, url_map(env, url.value()));
  });
}

}  // namespace webhooks::nif
