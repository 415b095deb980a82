// Purpose: UTF-8 validation, vectorized by simdjson where that pays.
// Ownership: plain values.
// Thread: any.
#include "webhooks/utf8.hpp"

#include <simdjson.h>

#include <cstdint>

namespace webhooks {
namespace {

// Below this many bytes the scalar loop beats the indirect call into simdjson
// and the partial block it has to set up.
constexpr std::size_t kVectorBytesMin = 32;

// The length of the sequence at the front of `bytes`, 0 when it is malformed.
// The second byte carries the restrictions (Unicode table 3-7); those after it
// are plain continuation bytes.
std::size_t sequence_length(std::string_view bytes) noexcept {
  const auto byte = [bytes](std::size_t i) {
    return static_cast<std::uint8_t>(bytes[i]);
  };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  std::size_t length = 0;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) {
      low = 0xA0;
    }
    if (lead == 0xED) {
      high = 0x9F;
    }
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) {
      low = 0x90;
    }
    if (lead == 0xF4) {
      high = 0x8F;
    }
  } else {
    return 0;
  }
  if (bytes.size() < length || byte(1) < low || byte(1) > high) {
    return 0;
  }
  for (std::size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  return length;
}

}  // namespace

std::optional<std::size_t> utf8_error_offset(std::string_view bytes) noexcept {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t length = sequence_length(bytes.substr(at));
    if (length == 0) {
      return at;
    }
    at += length;
  }
  return std::nullopt;
}

bool is_utf8(std::string_view bytes) noexcept {
  if (bytes.size() >= kVectorBytesMin) {
    return simdjson::validate_utf8(bytes.data(), bytes.size());
  }
  return !utf8_error_offset(bytes).has_value();
}

}  // namespace webhooks
