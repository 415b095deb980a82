// Purpose: the policy map, and check_url, which judges by it.
// Ownership: nothing outlives a call.
// Thread: any scheduler.
#include "nif/nif_policy.hpp"

#include <array>
#include <utility>
#include <vector>

#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"

namespace webhooks::nif {
namespace {

ReadStatus read_cidrs(ErlNifEnv* env, ERL_NIF_TERM list,
                      std::vector<Cidr>* cidrs) {
  return read_list(env, list, [&](ERL_NIF_TERM item) {
    const auto text = as_binary(env, item);
    if (!text) {
      return kBadarg;
    }
    if (cidrs->size() == kPolicyEntriesMax) {
      return failed("too_many_entries");
    }
    const auto cidr = Cidr::parse(*text);
    if (!cidr.ok()) {
      return failed(cidr.error().reason);
    }
    cidrs->push_back(cidr.value());
    return kRead;
  });
}

ReadStatus read_ports(ErlNifEnv* env, ERL_NIF_TERM list,
                      std::vector<std::uint16_t>* ports) {
  return read_list(env, list, [&](ERL_NIF_TERM item) {
    const auto port = as_int64(env, item);
    if (!port || *port < 1 || *port > 65535) {
      return kBadarg;
    }
    if (ports->size() == kPolicyEntriesMax) {
      return failed("too_many_entries");
    }
    ports->push_back(static_cast<std::uint16_t>(*port));
    return kRead;
  });
}

ERL_NIF_TERM url_map(ErlNifEnv* env, const Url& url) {
  std::array keys = {static_atom(env, "url"), static_atom(env, "scheme"),
                     static_atom(env, "host"), static_atom(env, "host_unicode"),
                     static_atom(env, "port")};
  std::array values = {make_binary(env, url.text), make_binary(env, url.scheme),
                       make_binary(env, url.host),
                       url.host_unicode.empty()
                           ? atoms::nil
                           : make_binary(env, url.host_unicode),
                       enif_make_uint(env, url.port)};
  static_assert(keys.size() == values.size());
  ERL_NIF_TERM map = atoms::nil;
  enif_make_map_from_arrays(env, keys.data(), values.data(), keys.size(), &map);
  return map;
}

}  // namespace

ReadStatus read_policy(ErlNifEnv* env, ERL_NIF_TERM map, UrlPolicy* policy) {
  bool allow_private = false;
  std::vector<Cidr> allow;
  const ReadStatus status =
      read_map(env, map, [&](std::string_view key, ERL_NIF_TERM value) {
        if (key == "https_only") {
          return read_flag(value, &policy->https_only);
        }
        if (key == "allow_private") {
          return read_flag(value, &allow_private);
        }
        if (key == "allow") {
          return read_cidrs(env, value, &allow);
        }
        return key == "ports" ? read_ports(env, value, &policy->ports)
                              : kBadarg;
      });
  policy->addresses = AddressPolicy(allow_private, std::move(allow));
  return status;
}

WEBHOOKS_NIF(nif_check_url) {
  return guard_gated(env, [&] {
    const auto text = as_binary(env, argv[0]);
    if (!text) {
      return enif_make_badarg(env);
    }
    UrlPolicy policy;
    const ReadStatus status = read_policy(env, argv[1], &policy);
    if (!status.ok()) {
      return error_term(env, status);
    }
    constexpr std::size_t kUs = 20;
    consume_us(env, kUs);
    const auto url = check_url(*text, policy);
    return url.ok() ? make_ok(env, url_map(env, url.value()))
                    : make_error(env, url.error().reason);
  });
}

}  // namespace webhooks::nif
