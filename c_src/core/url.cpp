// Purpose: judges and normalizes the URL of a webhook. The text is split only
// far enough to see what must be refused and to write the host in its canonical
// form. curl's parser reads the result, and its reading is returned.
// Ownership: plain values; deleters free curl's handles and strings.
// Thread: any.
#include "webhooks/url.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "core/ascii.hpp"
#include "core/url_host.hpp"
#include "webhooks/utf8.hpp"

namespace webhooks {
namespace {

constexpr std::uint16_t kHttpPort = 80;
constexpr std::uint16_t kHttpsPort = 443;

struct CurlUrlFree {
  void operator()(CURLU* handle) const noexcept { curl_url_cleanup(handle); }
};
struct CurlTextFree {
  void operator()(char* text) const noexcept { curl_free(text); }
};
using CurlUrl = std::unique_ptr<CURLU, CurlUrlFree>;
using CurlText = std::unique_ptr<char, CurlTextFree>;

struct Parts {
  std::string scheme;  // "http" or "https"
  std::string_view authority;
  std::string_view rest;  // path and query
};

Result<Parts> split(std::string_view text) {
  const std::size_t colon = text.find(':');
  Parts parts{std::string(text.substr(0, colon)), {}, {}};
  std::ranges::transform(parts.scheme, parts.scheme.begin(), to_lower);
  if (colon == std::string_view::npos ||
      (parts.scheme != "http" && parts.scheme != "https")) {
    return Error{"scheme", "a URL starts with https:// or http://"};
  }
  // curl repairs one and three slashes. A text that needs repair is refused,
  // because another reader may repair it in another way.
  text.remove_prefix(colon + 1);
  if (!text.starts_with("//")) {
    return Error{"malformed", "two slashes must follow the scheme"};
  }
  text.remove_prefix(2);
  const std::size_t end = std::min(text.find_first_of("/?#"), text.size());
  parts.authority = text.substr(0, end);
  parts.rest = text.substr(end);
  if (parts.authority.empty()) {
    return Error{"missing_host", ""};
  }
  if (parts.authority.find('@') != std::string_view::npos) {
    return Error{"user_info", "a user name or password"};
  }
  if (parts.rest.find('#') != std::string_view::npos) {
    return Error{"fragment", "a fragment is never sent"};
  }
  return parts;
}

struct HostAndPort {
  std::string_view host;
  std::optional<std::uint16_t> port;
};

Result<HostAndPort> split_authority(std::string_view authority) {
  std::size_t host_end = std::min(authority.find(':'), authority.size());
  if (authority.front() == '[') {
    host_end = authority.find(']') + 1;  // 0: none
    if (host_end == 0) {
      return Error{"invalid_host", "an unclosed bracket"};
    }
  }
  HostAndPort result{authority.substr(0, host_end), std::nullopt};
  if (result.host.empty()) {
    return Error{"missing_host", ""};
  }
  std::string_view port = authority.substr(host_end);
  if (port.empty() || port == ":") {  // by RFC 3986 the same
    return result;
  }
  if (port.front() != ':') {
    return Error{"malformed", "text after the closing bracket"};
  }
  result.port = to_integer<std::uint16_t>(port.substr(1));
  if (!result.port) {
    return Error{"malformed", "a port must be a number up to 65535"};
  }
  return result;
}

// Percent-encodes what a path or query must not contain, so that every version
// of curl sends the same request line.
std::string encode_rest(std::string_view rest) {
  static constexpr std::string_view kForbidden = "\"<>^`{|}";
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(rest.size() + 1);
  if (!rest.starts_with('/')) {
    encoded.push_back('/');
  }
  for (const char c : rest) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && kForbidden.find(c) == std::string_view::npos) {
      encoded.push_back(c);
      continue;
    }
    encoded.push_back('%');
    encoded.push_back(kHex[byte >> 4]);
    encoded.push_back(kHex[byte & 15]);
  }
  return encoded;
}

std::uint16_t default_port(std::string_view scheme) noexcept {
  return scheme == "https" ? kHttpsPort : kHttpPort;
}

// How curl reads a URL; nullopt if it refuses it.
std::optional<Url> ask_curl(const std::string& text) {
  const CurlUrl handle(curl_url());
  if (!handle ||
      curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
    return std::nullopt;
  }
  bool complete = true;
  const auto part = [&](CURLUPart which, unsigned flags) {
    char* raw = nullptr;
    const CURLUcode status = curl_url_get(handle.get(), which, &raw, flags);
    const CurlText owned(raw);
    complete = complete && status == CURLUE_OK && raw != nullptr;
    return std::string(complete ? raw : "");
  };
  Url url;
  url.text = part(CURLUPART_URL, CURLU_NO_DEFAULT_PORT);
  url.scheme = part(CURLUPART_SCHEME, 0);
  url.host = part(CURLUPART_HOST, 0);
  const auto port =
      to_integer<std::uint16_t>(part(CURLUPART_PORT, CURLU_DEFAULT_PORT));
  if (!complete || !port) {
    return std::nullopt;
  }
  url.port = *port;
  if (url.host.starts_with('[') && url.host.ends_with(']')) {
    url.host = url.host.substr(1, url.host.size() - 2);
  }
  url.literal = IpAddress::parse(url.host);
  return url;
}

// Joins the canonical parts and has curl read them twice: its reading of its
// own output must be what was judged.
Result<Url> normalize(const Parts& parts, const CanonicalHost& host,
                      std::uint16_t port) {
  std::string text = parts.scheme + "://";
  text += host.literal ? '[' + host.text + ']' : host.text;
  if (port != default_port(parts.scheme)) {
    text += ':' + std::to_string(port);
  }
  text += encode_rest(parts.rest);
  if (text.size() > kUrlBytesMax) {
    return Error{"too_long", "when normalized"};
  }
  auto url = ask_curl(text);
  if (!url || ask_curl(url->text) != url || url->scheme != parts.scheme ||
      url->port != port ||
      (url->literal && url->literal->to_string() != url->host) ||
      (!host.numeric &&
       (url->host != host.text ||
        url->literal.has_value() != host.literal.has_value()))) {
    return Error{"malformed", "curl refuses it or reads it differently"};
  }
  if (host.numeric && !url->literal) {
    return Error{"invalid_host",
                 "it ends in a number but is not an IPv4 address"};
  }
  url->host_unicode = host.unicode;
  return *std::move(url);
}

std::optional<Error> refuse_by_policy(const Url& url, bool international,
                                      const AddressPolicy& policy) {
  const Error blocked_port{"blocked_port", std::to_string(url.port)};
  if (url.port == 0) {
    return blocked_port;
  }
  if (url.literal) {
    if (international) {
      return Error{"invalid_host", "an address in international characters"};
    }
    const auto why = policy.judge(*url.literal, url.port, {});
    if (why == "blocked_port") {
      return blocked_port;
    }
    if (why) {
      return Error{"blocked_address", url.host + " is " + std::string(*why)};
    }
    return std::nullopt;
  }
  const bool allowed = policy.allows_name(url.host, url.port);
  // International characters can only be there to hide a local name.
  if (is_local_name(url.host) && (international || !allowed)) {
    return Error{"local_name", url.host};
  }
  if (is_blocked_port(url.port) && !allowed) {
    return blocked_port;
  }
  return std::nullopt;
}

}  // namespace

Result<Url> check_url(std::string_view text, const UrlPolicy& policy) {
  if (text.size() > kUrlBytesMax) {
    return Error{"too_long", "at most 2048 bytes"};
  }
  // Some parsers read a backslash as a slash, others as part of a user name.
  if (!is_utf8(text) || std::ranges::any_of(text, [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte <= 0x20 || byte == 0x7f || c == '\\';
      })) {
    return Error{"malformed",
                 "a space, a control character, a backslash or no UTF-8"};
  }
  const auto parts = split(text);
  if (!parts.ok()) {
    return parts.error();
  }
  const std::string& scheme = parts.value().scheme;
  if (policy.https_only && scheme != "https") {
    return Error{"https_required", ""};
  }
  const auto authority = split_authority(parts.value().authority);
  if (!authority.ok()) {
    return authority.error();
  }
  const auto host = canonical_host(authority.value().host);
  if (!host.ok()) {
    return host.error();
  }
  auto url = normalize(parts.value(), host.value(),
                       authority.value().port.value_or(default_port(scheme)));
  if (!url.ok()) {
    return url.error();
  }
  if (auto error = refuse_by_policy(url.value(), host.value().international,
                                    policy.addresses)) {
    return *std::move(error);
  }
  return url;
}

}  // namespace webhooks
