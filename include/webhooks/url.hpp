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
#include <vector>

#include "webhooks/address_policy.hpp"
#include "webhooks/result.hpp"

namespace webhooks {

inline constexpr std::size_t kUrlBytesMax = 2048;

struct UrlPolicy {
  bool https_only = true;
  AddressPolicy addresses;
  // Empty: every port but the bad ones of the Fetch standard.
  std::vector<std::uint16_t> ports;
};

struct Url {
  std::string text;    // normalized: what is stored, shown and dialled
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case, punycode, v6 literal without brackets
  std::uint16_t port = 0;
  std::optional<IpAddress> literal;  // set when the host is an address
};

// What passes has the form `scheme://host[:port]/path[?query]`, at most 2048
// bytes of visible ASCII, and passes again unchanged. Normalized: scheme and
// host to lower case, a trailing dot of the host and the default port dropped,
// percent-encoding in the host resolved, international names to punycode
// (UTS 46, non-transitional, IDNA 2008), IPv4 in any spelling to dotted
// decimal, IPv6 to its shortest form, dot segments resolved, bytes that may not
// stand in a path or query percent-encoded. Underscores are let in, but not in
// the last label: names with one resolve and answer.
//
// Errors: `too_long`, `malformed` (a space, control character or backslash
// anywhere; one or three slashes; a port that is none), `scheme` (not
// http/https, or none), `https_required`, `user_info`, `fragment`, `zone_id`,
// `missing_host`, `invalid_host` (no DNS name of labels of 1 to 63 letters,
// digits and inner hyphens, 253 bytes in all; ends in a number and is no IPv4
// address; an international name that turns into an address; an xn-- label that
// is not what its Unicode form encodes to), `local_name`, `blocked_address`,
// `blocked_port`. `detail` says what it was, never repeating path or query
// (they hold tokens).
//
// Local names (single label, localhost, .local, .internal, ...) are let in
// only by a policy with `allow_private`, and never in international
// characters; their addresses are judged when dialled. Port 0 is always
// refused; any other is let in by a policy that names it.
Result<Url> check_url(std::string_view text, const UrlPolicy& policy);

}  // namespace webhooks
