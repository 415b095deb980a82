// Purpose: the policy map, and check_url, which judges by it.
// Ownership: nothing outlives a call.
// Thread: any scheduler.
#include "nif/nif_policy.hpp"

#include <vector>

#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"

namespace webhooks::nif {
namespace {

std::vector<AllowEntry> read_allow(ErlNifEnv* env, ERL_NIF_TERM list) {
  constexpr std::size_t kEntriesMax = 256;
  std::vector<AllowEntry> entries;
  for_each_element(env, list, [&](ERL_NIF_TERM item) {
    if (entries.size() == kEntriesMax) {
      throw Refused{"too_many_entries"};
    }
    entries.push_back(
        value_of(AllowEntry::parse(expected(as_binary(env, item)))));
    return true;
  });
  return entries;
}

ERL_NIF_TERM url_map(ErlNifEnv* env, const Url& url) {
  return make_map(
      env, {{static_atom(env, "url"), make_binary(env, url.text)},
            {static_atom(env, "scheme"), make_binary(env, url.scheme)},
            {static_atom(env, "host"), make_binary(env, url.host)},
            {static_atom(env, "host_unicode"),
             url.host_unicode.empty() ? atoms::nil
                                      : make_binary(env, url.host_unicode)},
            {static_atom(env, "port"), enif_make_uint(env, url.port)}});
}

}  // namespace

UrlPolicy read_policy(ErlNifEnv* env, ERL_NIF_TERM map) {
  UrlPolicy policy;
  for_each_entry(env, map, [&](std::string_view key, ERL_NIF_TERM value) {
    if (key == "https_only") {
      policy.https_only = expected(as_bool(value));
    } else {
      expect(key == "allow");
      policy.addresses = AddressPolicy(read_allow(env, value));
    }
  });
  return policy;
}

WEBHOOKS_NIF(nif_check_url) {
  return guard_gated(env, [&] {
    const auto text = expected(as_binary(env, argv[0]));
    const UrlPolicy policy = read_policy(env, argv[1]);
    constexpr std::size_t kUs = 20;
    consume_us(env, kUs);
    return make_ok(env, url_map(env, value_of(check_url(text, policy))));
  });
}

}  // namespace webhooks::nif
