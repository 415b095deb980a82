// Purpose: judges and normalizes the URL of a webhook with curl's own URL API,
// so that the parser that validates is the parser that sends.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "webhooks/address_policy.hpp"
#include "webhooks/result.hpp"

namespace webhooks {

inline constexpr std::size_t kUrlBytesMax = 2048;

struct UrlPolicy {
  bool https_only = true;
  AddressPolicy addresses;
};

struct Url {
  std::string text;    // normalized: stored, shown and dialled
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case, punycode, IPv6 literal without brackets
  std::string host_unicode;  // of a host with xn-- labels; otherwise empty
  std::uint16_t port = 0;
  std::optional<IpAddress> literal;  // set when the host is an address
  friend bool operator==(const Url&, const Url&) = default;
};

// Returns `scheme://host[:port]/path[?query]`: at most 2048 bytes of visible
// ASCII that pass again unchanged. Normalizing lower-cases scheme and host,
// drops the host's trailing dot and the default port, decodes percent-encoding
// in the host, maps international names to punycode (UTS 46, non-transitional,
// IDNA 2008), writes IPv4 in dotted decimal and IPv6 in its shortest form,
// resolves dot segments, and percent-encodes what a path or query must not
// contain. An underscore is allowed in any label but the last: such names
// resolve and answer.
//
// Errors: `too_long`, `malformed` (not UTF-8; a space, control character or
// backslash anywhere; one or three slashes; an invalid port), `scheme` (neither
// http nor https), `https_required`, `user_info`, `fragment`, `zone_id`,
// `missing_host`, `invalid_host` (labels other than 1 to 63 letters, digits and
// inner hyphens; more than 253 bytes; a last label that is a number in a name
// that is not an IPv4 address; an international name that maps to an address;
// an xn-- label that its Unicode form does not encode to), `local_name`,
// `blocked_address`, `blocked_port`. `detail` explains the error and never
// repeats path or query, which may hold tokens.
//
// A local name (a single label, localhost, .local, .internal, ...) is allowed
// only by an entry of the policy with that name, and never in international
// characters. The addresses of a name are judged when they are dialled. Port 0
// is always refused; an entry may name any other.
Result<Url> check_url(std::string_view text, const UrlPolicy& policy);

}  // namespace webhooks
