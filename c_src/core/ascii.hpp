// Purpose: letters, digits, blanks and numbers of ASCII. The functions of
// <cctype> depend on the locale, which belongs to the VM. Thread: any.
#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

namespace webhooks {

constexpr bool is_ascii(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x80;
}

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

constexpr char to_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

constexpr bool is_letter(char c) noexcept {
  return to_lower(c) >= 'a' && to_lower(c) <= 'z';
}

constexpr bool is_hex_digit(char c) noexcept {
  return is_digit(c) || (to_lower(c) >= 'a' && to_lower(c) <= 'f');
}

// `prefix` is in lower case.
constexpr bool starts_with_ignoring_case(std::string_view text,
                                         std::string_view prefix) noexcept {
  return std::ranges::equal(text.substr(0, prefix.size()), prefix, {},
                            to_lower);
}

constexpr std::string_view trim(std::string_view text,
                                std::string_view blanks = " \t") noexcept {
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// The number that the whole text is; nullopt: none, or it does not fit.
template <class Integer>
std::optional<Integer> to_integer(std::string_view text,
                                  int base = 10) noexcept {
  Integer number = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number, base);
  return read.ec == std::errc{} && read.ptr == end ? std::optional(number)
                                                   : std::nullopt;
}

}  // namespace webhooks
