// Purpose: canonical hosts (url_host.hpp). libidn2 converts international names
// here. curl's own conversion depends on the locale, which in a BEAM is often
// "C": a URL would be valid on one node and malformed on the next.
// Ownership: plain values; a deleter frees what libidn2 allocates.
// Thread: any.
#include "core/url_host.hpp"

#include <idn2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

#include "core/ascii.hpp"

namespace webhooks {
namespace {

constexpr std::size_t kHostBytesMax = 253;
constexpr std::size_t kLabelBytesMax = 63;
// Before mapping: 253 ASCII characters stand for at most as many characters of
// four bytes. The limit also bounds the conversion, whose time grows with the
// square of the length.
constexpr std::size_t kInternationalBytesMax = 4 * kHostBytesMax;
constexpr std::string_view kPunycodePrefix = "xn--";
// UTS 46, non-transitional: what browsers do.
constexpr int kIdnFlags = IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL;

struct IdnFree {
  void operator()(char* text) const noexcept { idn2_free(text); }
};
using IdnText = std::unique_ptr<char, IdnFree>;

Error invalid_host(const char* why) { return Error{"invalid_host", why}; }

// The underscore is not for host names, but names with one resolve and answer.
bool is_name_character(char c) noexcept {
  return is_letter(c) || is_digit(c) || c == '-' || c == '_';
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded.push_back(text[i]);
      continue;
    }
    const std::string_view digits = text.substr(i + 1, 2);
    const auto byte = to_integer<std::uint8_t>(digits, 16);
    if (digits.size() != 2 || !byte) {
      return std::nullopt;
    }
    decoded.push_back(static_cast<char>(*byte));
    i += 2;
  }
  return decoded;
}

// `convert` is one of libidn2's functions. nullopt: `name` is not valid UTF-8,
// or not a name under UTS 46 and IDNA 2008.
template <class Convert>
std::optional<std::string> converted(Convert&& convert,
                                     const std::string& name) {
  char* raw = nullptr;
  const int status = convert(name.c_str(), &raw, kIdnFlags);
  const IdnText text(raw);
  if (status != IDN2_OK || raw == nullptr) {
    return std::nullopt;
  }
  return std::string(raw);
}

// IDNA 2008 has no emoji, but some registries sell them, and browsers follow.
// Writes a letter for each character of U+2600 to U+27BF, U+2B00 to U+2BFF and
// U+1F300 to U+1FAFF, of which UTS 46 maps none to another one.
std::string without_emoji(std::string_view unicode) {
  struct Block {
    std::string_view lead;
    unsigned char from;
    unsigned char to;  // of the byte after the lead
  };
  static constexpr Block kBlocks[] = {
      {"\xE2", 0x98, 0x9E}, {"\xE2", 0xAC, 0xAF}, {"\xF0\x9F", 0x8C, 0xAB}};
  std::string plain;
  while (!unicode.empty()) {
    const auto* const block =
        std::ranges::find_if(kBlocks, [&](const Block& b) {
          const auto byte = unicode.substr(0, b.lead.size() + 1);
          return byte.starts_with(b.lead) && byte.size() > b.lead.size() &&
                 static_cast<unsigned char>(byte.back()) >= b.from &&
                 static_cast<unsigned char>(byte.back()) <= b.to;
        });
    const bool emoji = block != std::end(kBlocks);
    plain.push_back(emoji ? 'a' : unicode.front());
    unicode.remove_prefix(emoji ? block->lead.size() + 2 : 1);
  }
  return plain;
}

// The Unicode form of a name with xn-- labels. This form must encode to a name
// that decodes to it again: a label that decodes to plain ASCII, or to what UTS
// 46 maps to something else, would be a second spelling of another name.
std::optional<std::string> to_unicode(const std::string& name) {
  auto unicode = converted(idn2_to_unicode_8z8z, name);
  if (!unicode) {
    return std::nullopt;
  }
  const std::string plain = without_emoji(*unicode);
  const auto encoded = converted(idn2_to_ascii_8z, plain);
  const bool same =
      plain == *unicode
          ? encoded == name
          : encoded && converted(idn2_to_unicode_8z8z, *encoded) == plain;
  return same ? unicode : std::nullopt;
}

// Calls `visit` with each dot-separated label until it returns false.
template <class Visit>
bool every_label(std::string_view name, Visit&& visit) {
  for (;;) {
    const std::size_t dot = name.find('.');
    if (!visit(name.substr(0, dot))) {
      return false;
    }
    if (dot == std::string_view::npos) {
      return true;
    }
    name.remove_prefix(dot + 1);
  }
}

bool is_label(std::string_view label) noexcept {
  return !label.empty() && label.size() <= kLabelBytesMax &&
         label.front() != '-' && label.back() != '-' &&
         std::ranges::all_of(label, is_name_character);
}

std::string_view last_label(std::string_view name) noexcept {
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

// A number to inet_aton and the URL Standard: decimal or octal digits, or 0x
// and any hexadecimal digits, even none.
bool is_number(std::string_view label) noexcept {
  if (std::ranges::all_of(label, is_digit)) {
    return true;
  }
  return label.starts_with("0x") &&
         std::ranges::all_of(label.substr(2), is_hex_digit);
}

Result<CanonicalHost> ipv6_literal(std::string_view bracketed) {
  if (bracketed.find('%') != std::string_view::npos) {
    return Error{"zone_id", "an address with a zone"};
  }
  const auto address =
      IpAddress::parse(bracketed.substr(1, bracketed.size() - 2));
  if (!address || address->family != IpAddress::Family::kV6) {
    return invalid_host("brackets must hold an IPv6 address");
  }
  CanonicalHost host;
  host.text = address->to_string();
  host.literal = *address;
  return host;
}

}  // namespace

Result<CanonicalHost> canonical_host(std::string_view raw) {
  if (raw.size() >= 2 && raw.front() == '[' && raw.back() == ']') {
    return ipv6_literal(raw);
  }
  auto decoded = percent_decode(raw);
  if (!decoded) {
    return invalid_host("a percent sign without two hexadecimal digits");
  }
  if (!std::ranges::all_of(*decoded, [](char c) {
        return !is_ascii(c) || c == '.' || is_name_character(c);
      })) {
    return invalid_host("a character that host names do not have");
  }
  CanonicalHost host;
  host.international = !std::ranges::all_of(*decoded, is_ascii);
  if (host.international) {
    if (decoded->size() > kInternationalBytesMax) {
      return invalid_host("too long");
    }
    decoded = converted(idn2_to_ascii_8z, *decoded);
    if (!decoded) {
      return invalid_host("not a valid international name");
    }
  }
  host.text = *std::move(decoded);
  std::ranges::transform(host.text, host.text.begin(), to_lower);
  if (host.text.ends_with('.')) {
    host.text.pop_back();
  }
  if (host.text.size() > kHostBytesMax) {
    return invalid_host("longer than 253 bytes");
  }
  if (!every_label(host.text, is_label)) {
    return invalid_host(
        "labels have 1 to 63 letters, digits and inner hyphens");
  }
  const std::string_view last = last_label(host.text);
  if (last.find('_') != std::string_view::npos) {
    return invalid_host("no top-level domain has an underscore");
  }
  const bool encoded = !every_label(host.text, [](std::string_view label) {
    return !label.starts_with(kPunycodePrefix);
  });
  if (encoded) {
    auto unicode = to_unicode(host.text);
    if (!unicode) {
      return invalid_host("an xn-- label that is not valid punycode");
    }
    host.unicode = *std::move(unicode);
  }
  host.numeric = is_number(last);
  return host;
}

bool is_local_name(std::string_view host) noexcept {
  // From RFC 6761, 6762, 7686 and 8375, reserved by ICANN for private use, and
  // common names of routers' and companies' networks. None of them is a public
  // top-level domain.
  static constexpr auto kLocalDomains = std::to_array<std::string_view>(
      {"localhost", "local", "internal", "home.arpa", "onion", "localdomain",
       "lan", "home", "corp", "intranet", "private"});
  if (host.find('.') == std::string_view::npos) {
    return true;
  }
  return std::ranges::any_of(kLocalDomains, [&](std::string_view domain) {
    return host == domain || (host.ends_with(domain) &&
                              host[host.size() - domain.size() - 1] == '.');
  });
}

}  // namespace webhooks
