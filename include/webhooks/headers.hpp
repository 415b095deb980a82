// Purpose: judges the request headers that a user adds to a webhook, when they
// are saved and again before they are sent, by one set of rules. curl sends
// header lines unchanged, so nothing after this check protects the request.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "webhooks/result.hpp"

namespace webhooks {

inline constexpr std::size_t kHeadersMax = 20;
inline constexpr std::size_t kHeaderNameBytesMax = 128;
inline constexpr std::size_t kHeaderValueBytesMax = 4096;
// Names and values together: many servers stop reading at 16 KiB.
inline constexpr std::size_t kHeaderTotalBytesMax = std::size_t{12} * 1024;

using HeaderView = std::pair<std::string_view, std::string_view>;

// Errors:
//  - `invalid_header_name`: not a token (RFC 9110), or longer than 128 bytes.
//  - `reserved_header`: a name that is ours (webhook-*, content-*, user-agent),
//    that frames or routes the message (host, transfer-encoding, connection,
//    proxy-*, ...), that servers trust a proxy to set (forwarded,
//    x-forwarded-*, x-real-ip, x-amz-*, ...), that opens cloud metadata
//    services, or cookie. Case does not matter, and `_` counts as `-`: servers
//    that hand headers on as environment variables cannot tell them apart.
//  - `invalid_header_value`: empty (curl would drop the line), longer than 4096
//    bytes, or anything but visible ASCII with spaces inside. There is no
//    agreement on what other bytes in a header mean.
Status check_header(std::string_view name, std::string_view value);

struct HeaderProblem {
  std::string_view reason;
  std::size_t index = 0;  // of the header that is at fault, from 0
};

// check_header for each, and for all of them: `too_many_headers` (more than
// 20), `duplicate_header` (names equal by the rule above), `headers_too_large`
// (12 KiB of names and values). nullopt: fine.
std::optional<HeaderProblem> check_headers(std::span<const HeaderView> headers);

}  // namespace webhooks
