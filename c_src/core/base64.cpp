// Purpose: the codec behind base64.hpp.
// Ownership: the caller's buffers; nothing is kept.
// Thread: any.
#include "core/base64.hpp"

#include <array>

namespace webhooks {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t kInvalid = 0xff;

constexpr std::array<std::uint8_t, 256> make_reverse() {
  std::array<std::uint8_t, 256> reverse{};
  reverse.fill(kInvalid);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    reverse[static_cast<unsigned char>(kAlphabet[i])] =
        static_cast<std::uint8_t>(i);
  }
  return reverse;
}
constexpr std::array<std::uint8_t, 256> kReverse = make_reverse();

std::uint8_t value_of(char c) noexcept {
  return kReverse[static_cast<unsigned char>(c)];
}

}  // namespace

void base64_append(std::span<const std::uint8_t> bytes, std::string& out) {
  const std::size_t start = out.size();
  out.resize(start + base64_length(bytes.size()));
  char* to = out.data() + start;
  std::size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3) {
    const std::uint32_t group = (std::uint32_t{bytes[i]} << 16) |
                                (std::uint32_t{bytes[i + 1]} << 8) |
                                bytes[i + 2];
    *to++ = kAlphabet[group >> 18];
    *to++ = kAlphabet[(group >> 12) & 63];
    *to++ = kAlphabet[(group >> 6) & 63];
    *to++ = kAlphabet[group & 63];
  }
  const std::size_t rest = bytes.size() - i;
  if (rest == 0) {
    return;
  }
  const std::uint32_t group =
      (std::uint32_t{bytes[i]} << 16) |
      (rest == 2 ? std::uint32_t{bytes[i + 1]} << 8 : 0);
  *to++ = kAlphabet[group >> 18];
  *to++ = kAlphabet[(group >> 12) & 63];
  *to++ = rest == 2 ? kAlphabet[(group >> 6) & 63] : '=';
  *to = '=';
}

std::optional<std::size_t> base64_decoded_size(std::string_view text) noexcept {
  if (text.empty()) {
    return 0;
  }
  if (text.size() % 4 != 0) {
    return std::nullopt;
  }
  std::size_t padding = 0;
  if (text[text.size() - 1] == '=') {
    padding = 1;
  }
  if (padding == 1 && text[text.size() - 2] == '=') {
    padding = 2;
  }
  return text.size() / 4 * 3 - padding;
}

bool base64_decode(std::string_view text,
                   std::span<std::uint8_t> out) noexcept {
  const auto size = base64_decoded_size(text);
  if (!size || *size != out.size()) {
    return false;
  }
  std::size_t at = 0;
  std::uint32_t bits = 0;
  unsigned bits_held = 0;
  const std::size_t characters = (out.size() * 8 + 5) / 6;
  for (const char c : text.substr(0, characters)) {
    const std::uint8_t value = value_of(c);
    if (value == kInvalid) {
      return false;
    }
    bits = (bits << 6) | value;
    bits_held += 6;
    if (bits_held < 8) {
      continue;
    }
    bits_held -= 8;
    out[at++] = static_cast<std::uint8_t>(bits >> bits_held);
  }
  return (bits & ((1U << bits_held) - 1)) == 0;
}

}  // namespace webhooks
