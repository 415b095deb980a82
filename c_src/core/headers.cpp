// Purpose: the rules of headers.hpp.
// Ownership: plain values.
// Thread: any.
#include "webhooks/headers.hpp"

#include <algorithm>
#include <array>

#include "core/ascii.hpp"

namespace webhooks {
namespace {

constexpr auto kReservedNames = std::to_array<std::string_view>(
    {// Frames, routes or negotiates the message: curl's business, or nobody's.
     "accept-encoding", "connection", "date", "expect", "host",
     "http2-settings", "keep-alive", "max-forwards", "te", "trailer",
     "transfer-encoding", "upgrade", "user-agent",
     // Would make another request of a signed POST.
     "x-http-method", "x-http-method-override", "x-method-override",
     "x-rewrite-url",
     // A delivery has no session.
     "cookie", "cookie2", "set-cookie", "set-cookie2",
     // Servers believe these of whoever stands in front of them.
     "cdn-loop", "cf-connecting-ip", "fastly-client-ip", "forwarded",
     "true-client-ip", "via", "x-client-ip", "x-cluster-client-ip", "x-real-ip",
     // Prove to a cloud's metadata service that it is not being tricked.
     "metadata", "metadata-flavor"});

constexpr auto kReservedPrefixes = std::to_array<std::string_view>(
    {"content-", "proxy-", "sec-", "svix-", "webhook-", "x-amz-", "x-amzn-",
     "x-aws-", "x-azure-", "x-envoy-", "x-forwarded-", "x-goog-", "x-google-",
     "x-original-", "x-svix-"});

// RFC 9110, section 5.6.2.
bool is_token_character(char c) noexcept {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return is_digit(c) || is_letter(c) ||
         kMarks.find(c) != std::string_view::npos;
}

bool is_visible(char c) noexcept { return c > 0x20 && c < 0x7f; }

// What a name is compared by.
char folded(char c) noexcept { return c == '_' ? '-' : to_lower(c); }

bool same_name(std::string_view a, std::string_view b) noexcept {
  return std::ranges::equal(a, b, {}, folded, folded);
}

bool is_reserved(std::string_view name) noexcept {
  return std::ranges::any_of(kReservedNames,
                             [&](std::string_view reserved) {
                               return same_name(name, reserved);
                             }) ||
         std::ranges::any_of(kReservedPrefixes, [&](std::string_view prefix) {
           return same_name(name.substr(0, prefix.size()), prefix);
         });
}

bool is_value(std::string_view value) noexcept {
  return !value.empty() && value.size() <= kHeaderValueBytesMax &&
         is_visible(value.front()) && is_visible(value.back()) &&
         std::ranges::all_of(value,
                             [](char c) { return c == ' ' || is_visible(c); });
}

}  // namespace

Status check_header(std::string_view name, std::string_view value) {
  if (name.empty() || name.size() > kHeaderNameBytesMax ||
      !std::ranges::all_of(name, is_token_character)) {
    return Error{"invalid_header_name", "1 to 128 token characters"};
  }
  if (is_reserved(name)) {
    return Error{"reserved_header", ""};
  }
  if (!is_value(value)) {
    return Error{"invalid_header_value",
                 "1 to 4096 visible ASCII characters, spaces inside"};
  }
  return Ok{};
}

std::optional<HeaderProblem> check_headers(
    std::span<const HeaderView> headers) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < headers.size(); ++i) {
    if (i == kHeadersMax) {
      return HeaderProblem{"too_many_headers", i};
    }
    const auto& [name, value] = headers[i];
    const Status status = check_header(name, value);
    if (!status.ok()) {
      return HeaderProblem{status.error().reason, i};
    }
    for (const auto& earlier : headers.first(i)) {
      if (same_name(earlier.first, name)) {
        return HeaderProblem{"duplicate_header", i};
      }
    }
    bytes += name.size() + value.size();
    if (bytes > kHeaderTotalBytesMax) {
      return HeaderProblem{"headers_too_large", i};
    }
  }
  return std::nullopt;
}

}  // namespace webhooks
