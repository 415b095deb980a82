// Purpose: reads the policy map of check_url and of the engine's options, in
// one place so that saving and sending judge by the same rules.
// Ownership: the result is a plain value; no term is kept.
// Thread: any scheduler.
#pragma once

#include <erl_nif.h>

#include <string_view>

#include "webhooks/url.hpp"

namespace webhooks::nif {

enum class PolicyParse {
  kOk,
  kBadarg,  // no map, an unknown key, or a value of the wrong type
  kError,   // well-formed, but it cannot be used: see `reason`
};

// The map's keys, all optional: `https_only` (true), `allow_private` (false),
// `allow` (a list of CIDR binaries; empty), `ports` (a list of 1 to 65535;
// empty: every port but the bad ones). `reason` is `invalid_cidr`, or
// `too_many_entries` for more than kPolicyEntriesMax CIDRs or ports.
inline constexpr std::size_t kPolicyEntriesMax = 256;
PolicyParse parse_policy(ErlNifEnv* env, ERL_NIF_TERM map, UrlPolicy* policy,
                         std::string_view* reason);

}  // namespace webhooks::nif
