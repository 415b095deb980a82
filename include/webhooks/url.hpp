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

// Errors: `too_long`, `malformed`, `scheme` (not http/https), `https_required`,
// `user_info`, `fragment`, `zone_id`, `missing_host`, `invalid_host`,
// `local_name`, `blocked_address`, `blocked_port`. `detail` says what it was,
// never repeating path or query (they hold tokens).
// Local names (single label, localhost, .local, .internal, ...) are let in
// only by a policy with `allow_private`; their addresses are judged when
// dialled.
Result<Url> check_url(std::string_view text, const UrlPolicy& policy);

}  // namespace webhooks
