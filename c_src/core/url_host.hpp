// Purpose: one canonical form for the host of a URL, whatever its spelling:
// percent-encoded, international, upper case, with a trailing dot.
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
  std::string text;     // lower-case ASCII; an IPv6 literal without brackets
  std::string unicode;  // of a name with xn-- labels; otherwise empty
  std::optional<IpAddress> literal;  // of an IPv6 literal
  // The last label is a number, so every parser reads the host as an IPv4
  // address or refuses it. curl's parser, which dials, decides which.
  bool numeric = false;
  // The text had characters beyond ASCII, which were mapped.
  bool international = false;
};

// `raw` is the authority without its port. Errors: `invalid_host`, `zone_id`.
Result<CanonicalHost> canonical_host(std::string_view raw);

// Whether a name has a meaning only inside a private network: a single label,
// or a name under a domain that the public DNS does not have.
bool is_local_name(std::string_view host) noexcept;

}  // namespace webhooks
