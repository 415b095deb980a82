// Purpose: the policy map (nif_policy.hpp).
// Ownership: plain values; no term is kept.
// Thread: any scheduler.
#include "nif/nif_policy.hpp"

#include <utility>
#include <vector>

#include "nif/nif_support.hpp"

namespace webhooks::nif {
namespace {

// Calls `take` with each element until it returns something else than kOk.
template <class Take>
PolicyParse each(ErlNifEnv* env, ERL_NIF_TERM list, std::string_view* reason,
                 Take&& take) {
  ERL_NIF_TERM head;
  std::size_t count = 0;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    if (++count > kPolicyEntriesMax) {
      *reason = "too_many_entries";
      return PolicyParse::kError;
    }
    const PolicyParse outcome = take(head);
    if (outcome != PolicyParse::kOk) {
      return outcome;
    }
  }
  return enif_is_empty_list(env, list) != 0 ? PolicyParse::kOk
                                            : PolicyParse::kBadarg;
}

PolicyParse read_cidrs(ErlNifEnv* env, ERL_NIF_TERM list,
                       std::vector<Cidr>* out, std::string_view* reason) {
  return each(env, list, reason, [&](ERL_NIF_TERM item) {
    const auto text = as_binary(env, item);
    if (!text) {
      return PolicyParse::kBadarg;
    }
    const auto cidr = Cidr::parse(*text);
    if (!cidr.ok()) {
      *reason = cidr.error().reason;
      return PolicyParse::kError;
    }
    out->push_back(cidr.value());
    return PolicyParse::kOk;
  });
}

PolicyParse read_ports(ErlNifEnv* env, ERL_NIF_TERM list,
                       std::vector<std::uint16_t>* out,
                       std::string_view* reason) {
  return each(env, list, reason, [&](ERL_NIF_TERM item) {
    const auto port = as_int64(env, item);
    if (!port || *port < 1 || *port > 65535) {
      return PolicyParse::kBadarg;
    }
    out->push_back(static_cast<std::uint16_t>(*port));
    return PolicyParse::kOk;
  });
}

}  // namespace

PolicyParse parse_policy(ErlNifEnv* env, ERL_NIF_TERM map, UrlPolicy* policy,
                         std::string_view* reason) {
  std::size_t size = 0;
  if (enif_get_map_size(env, map, &size) == 0) {
    return PolicyParse::kBadarg;
  }
  std::size_t known = 0;
  const auto value_of = [&](const char* key) {
    const auto value = map_get(env, map, key);
    if (value) {
      ++known;
    }
    return value;
  };
  bool allow_private = false;
  if (const auto term = value_of("https_only")) {
    const auto flag = as_bool(*term);
    if (!flag) {
      return PolicyParse::kBadarg;
    }
    policy->https_only = *flag;
  }
  if (const auto term = value_of("allow_private")) {
    const auto flag = as_bool(*term);
    if (!flag) {
      return PolicyParse::kBadarg;
    }
    allow_private = *flag;
  }
  std::vector<Cidr> allow;
  if (const auto term = value_of("allow")) {
    const PolicyParse outcome = read_cidrs(env, *term, &allow, reason);
    if (outcome != PolicyParse::kOk) {
      return outcome;
    }
  }
  if (const auto term = value_of("ports")) {
    const PolicyParse outcome = read_ports(env, *term, &policy->ports, reason);
    if (outcome != PolicyParse::kOk) {
      return outcome;
    }
  }
  policy->addresses = AddressPolicy(allow_private, std::move(allow));
  return known == size ? PolicyParse::kOk : PolicyParse::kBadarg;
}

}  // namespace webhooks::nif
