// Purpose: the scans of json_text.hpp.
// Ownership: plain values; the text stays the caller's.
// Thread: any.
#include "core/json_text.hpp"

#include <algorithm>
#include <charconv>

#include "webhooks/utf8.hpp"

namespace webhooks {
namespace {

std::size_t digits_end(std::string_view text, std::size_t at) noexcept {
  while (at < text.size() && is_digit(text[at])) {
    ++at;
  }
  return at;
}

// Which side a number that is out of range of a double lies on: the exponent of
// its first digit that is not zero, 308 or more here or else -324 or less.
bool is_vast(std::string_view text) noexcept {
  if (text.front() == '-') {
    text.remove_prefix(1);
  }
  const std::size_t e = text.find_first_of("eE");
  const std::string_view mantissa = text.substr(0, e);
  std::int64_t exponent = 0;
  if (e != std::string_view::npos) {
    std::string_view digits = text.substr(e + 1);
    const bool negative = digits.front() == '-';
    if (negative || digits.front() == '+') {
      digits.remove_prefix(1);
    }
    constexpr std::int64_t kBeyondAny = std::int64_t{1} << 62;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), exponent)
                .ec != std::errc{} ||
        exponent > kBeyondAny) {
      exponent = kBeyondAny;
    }
    if (negative) {
      exponent = -exponent;
    }
  }
  const std::size_t point = std::min(mantissa.find('.'), mantissa.size());
  const std::size_t first = mantissa.find_first_of("123456789");
  const auto place =
      static_cast<std::int64_t>(point) -
      static_cast<std::int64_t>(std::min(first, mantissa.size()));
  return place + exponent > 0;
}

bool is_hex4(std::string_view text) noexcept {
  unsigned value = 0;
  const char* const end = text.data() + text.size();
  return text.size() == 4 &&
         std::from_chars(text.data(), end, value, 16).ptr == end;
}

unsigned hex4(std::string_view text) noexcept {
  unsigned value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

// Length of the escape at the front of `text` (it starts with a backslash);
// 0: no such escape, or half a surrogate pair.
std::size_t escape_length(std::string_view text) noexcept {
  if (text.size() < 2) {
    return 0;
  }
  if (text[1] != 'u') {
    return std::string_view("\"\\/bfnrt").find(text[1]) ==
                   std::string_view::npos
               ? 0
               : 2;
  }
  if (!is_hex4(text.substr(2, 4))) {
    return 0;
  }
  const unsigned first = hex4(text.substr(2, 4));
  if (first < 0xD800 || first > 0xDFFF) {
    return 6;
  }
  if (first > 0xDBFF || text.substr(6, 2) != "\\u" ||
      !is_hex4(text.substr(8, 4))) {
    return 0;
  }
  const unsigned second = hex4(text.substr(8, 4));
  return second >= 0xDC00 && second <= 0xDFFF ? 12 : 0;
}

}  // namespace

NumberKind number_kind(std::string_view text) noexcept {
  std::size_t at = !text.empty() && text[0] == '-' ? 1 : 0;
  std::size_t end = digits_end(text, at);
  if (end == at || (text[at] == '0' && end > at + 1)) {
    return NumberKind::invalid;
  }
  NumberKind kind = NumberKind::integer;
  at = end;
  if (at < text.size() && text[at] == '.') {
    kind = NumberKind::real;
    end = digits_end(text, at + 1);
    if (end == at + 1) {
      return NumberKind::invalid;
    }
    at = end;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    kind = NumberKind::real;
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) {
      ++at;
    }
    end = digits_end(text, at);
    if (end == at) {
      return NumberKind::invalid;
    }
    at = end;
  }
  return at == text.size() ? kind : NumberKind::invalid;
}

std::optional<double> real_value(std::string_view text) noexcept {
  double value = 0;
  const auto parsed =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc{}) {
    return value;
  }
  if (is_vast(text)) {
    return std::nullopt;
  }
  return text.front() == '-' ? -0.0 : 0.0;
}

std::size_t bad_escape_offset(std::string_view json, std::size_t at) noexcept {
  const std::size_t quote = at++;
  while (at < json.size() && json[at] != '"') {
    if (json[at] != '\\') {
      ++at;
      continue;
    }
    const std::size_t length = escape_length(json.substr(at));
    if (length == 0) {
      return at;
    }
    at += length;
  }
  return quote;
}

std::size_t string_end(std::string_view json, std::size_t at) noexcept {
  for (++at; at < json.size() && json[at] != '"'; ++at) {
    if (json[at] == '\\') {
      ++at;
    }
  }
  return at < json.size() ? at + 1 : json.size();
}

JsonFault first_pass_fault(std::string_view json) noexcept {
  if (const auto at = utf8_error_offset(json)) {
    return {"invalid_utf8", *at};
  }
  bool inside = false;
  std::size_t quote = 0;
  for (std::size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (c == '"') {
      inside = !inside;
      quote = at;
    } else if (inside && static_cast<unsigned char>(c) < 0x20) {
      return {"control_character", at};
    } else if (c == '\\') {
      // Outside of strings as well: the first pass counts quotes that way.
      if (!inside) {
        return {"unexpected_token", at};
      }
      if (at + 1 < json.size() &&
          static_cast<unsigned char>(json[at + 1]) >= 0x20) {
        ++at;
      }
    }
  }
  return {"unclosed_string", quote};
}

}  // namespace webhooks
