// Purpose: integers too large for 64 bits, between decimal text and the
// little-endian magnitude that Erlang's external term format uses.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace webhooks {

// The largest magnitude is 2^4096 - 1. A limit because the conversion costs
// the square of the length: 512 bytes take some ten microseconds, a megabyte
// would take minutes.
inline constexpr std::size_t kBigIntegerBytesMax = 512;
// Digits of 2^4096 - 1.
inline constexpr std::size_t kBigIntegerDigitsMax = 1234;

// Decimal digits, no sign, no leading zeros ("0" for nothing but zeros).
// nullopt: more than kBigIntegerBytesMax significant bytes.
std::optional<std::string> decimal_from_magnitude(
    std::span<const std::uint8_t> little_endian);

// `digits` holds '0'..'9' only. No trailing zero bytes (empty for zero).
// nullopt: not below 2^4096.
std::optional<std::vector<std::uint8_t>> magnitude_from_decimal(
    std::string_view digits);

}  // namespace webhooks
