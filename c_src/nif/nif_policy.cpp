// Purpose: the policy map, and check_url, which judges by it.
// Ownership: nothing outlives a call.
// Thread: any scheduler.
#include "nif/nif_policy.hpp"

#include <utility>
#include <vector>

#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"

namespace webhooks::nif {
namespace {

// `read_one` reads an element of the list.
template <class Element, class ReadOne>
std::vector<Element> read_entries(ErlNifEnv* env, ERL_NIF_TERM list,
                                  ReadOne&& read_one) {
  constexpr std::size_t kEntriesMax = 256;
  std::vector<Element> entries;
  for_each_element(env, list, [&](ERL_NIF_TERM item) {
    Element element = read_one(item);
    if (entries.size() == kEntriesMax) {
      throw Refused{"too_many_entries"};
    }
    entries.push_back(std::move(element));
    return true;
  });
  return entries;
}

std::vector<Cidr> read_cidrs(ErlNifEnv* env, ERL_NIF_TERM list) {
  return read_entries<Cidr>(env, list, [env](ERL_NIF_TERM item) {
    return value_of(Cidr::parse(expected(as_binary(env, item))));
  });
}

std::vector<std::uint16_t> read_ports(ErlNifEnv* env, ERL_NIF_TERM list) {
  return read_entries<std::uint16_t>(env, list, [env](ERL_NIF_TERM item) {
    const auto port = expected(as_int64(env, item));
    expect(port >= 1 && port <= 65535);
    return static_cast<std::uint16_t>(port);
  });
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
  bool allow_private = false;
  std::vector<Cidr> allow;
  for_each_entry(env, map, [&](std::string_view key, ERL_NIF_TERM value) {
    if (key == "https_only") {
      policy.https_only = expected(as_bool(value));
    } else if (key == "allow_private") {
      allow_private = expected(as_bool(value));
    } else if (key == "allow") {
      allow = read_cidrs(env, value);
    } else {
      expect(key == "ports");
      policy.ports = read_ports(env, value);
    }
  });
  policy.addresses = AddressPolicy(allow_private, std::move(allow));
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
