// Purpose: JSON by its characters: what the walk of json_reader.cpp does not
// leave to simdjson, which converts numbers its own way and names errors but
// not always their place.
// Source: RFC 8259.
// Ownership: plain values; the text stays the caller's.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "webhooks/json_reader.hpp"

namespace webhooks {

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_space(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

inline std::string_view trimmed(std::string_view token) noexcept {
  while (!token.empty() && is_space(token.back())) {
    token.remove_suffix(1);
  }
  return token;
}

enum class NumberKind : std::uint8_t { invalid, integer, real };

// The grammar of section 6, on the whole token.
NumberKind number_kind(std::string_view text) noexcept;

// Not simdjson's own conversion: before 3.6.4 that turned
// 0.95000000000000000000 into 0.0276628 without a word
// (simdjson/simdjson#2093). nullopt: too large.
std::optional<double> real_value(std::string_view text) noexcept;

// --- places of faults; only ever looked for once something is wrong ----------

// The first bad escape of the string whose opening quote is at `at`.
std::size_t bad_escape_offset(std::string_view json, std::size_t at) noexcept;

// Behind the closing quote of the string that opens at `at`.
std::size_t string_end(std::string_view json, std::size_t at) noexcept;

// What simdjson's first pass refuses: bytes that are not UTF-8, raw control
// characters in strings, a string without an end. It does not say where.
JsonFault first_pass_fault(std::string_view json) noexcept;

}  // namespace webhooks
