// Purpose: one canonical form for the host of a URL, whatever spelling it came
// in: percent-encoded, international, upper case, with a trailing dot.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "webhooks/address_policy.hpp"
#include "webhooks/result.hpp"

namespace webhooks {

struct CanonicalHost {
  std::string text;  // lower-case ASCII; an IPv6 literal without brackets
  std::optional<IpAddress> literal;  // set for IPv6 only
  // The last label is a number, so that everyone will read the whole as an
  // IPv4 address in one of its spellings, or as nothing. Which one it is, the
  // parser that dials decides.
  bool numeric = false;
  // Came with characters beyond ASCII and was mapped.
  bool international = false;
};

// `raw` is what stands between "://" (or nothing: user info is no business of
// this function) and the port. Errors: `invalid_host`, `zone_id`.
Result<CanonicalHost> canonical_host(std::string_view raw);

// A name that means something inside a private network only: a single label,
// or one under a domain that the public DNS does not have.
bool is_local_name(std::string_view host) noexcept;

}  // namespace webhooks
