// Purpose: standard padded base64 (RFC 4648 section 4), nothing laxer. The
// receivers' libraries disagree on url-safe and unpadded text; what all of
// them read alike is this form, so it is the only one written or taken.
// Ownership: the caller's buffers; nothing is kept.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace webhooks {

constexpr std::size_t base64_length(std::size_t bytes) noexcept {
  return (bytes + 2) / 3 * 4;
}

void base64_append(std::span<const std::uint8_t> bytes, std::string& out);

// How many bytes `text` decodes to. nullopt: the length or the padding is
// wrong (the alphabet is base64_decode's business).
std::optional<std::size_t> base64_decoded_size(std::string_view text) noexcept;

// Fills `out`, whose size must be base64_decoded_size(text). False: a
// character outside the alphabet, or leftover bits that are not zero (two
// spellings of one value would let a signature be rewritten).
bool base64_decode(std::string_view text, std::span<std::uint8_t> out) noexcept;

}  // namespace webhooks
