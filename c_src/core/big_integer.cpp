// Purpose: base conversion of bounded integers, 19 decimal digits at a time.
// Ownership: plain values.
// Thread: any.
#include "webhooks/big_integer.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace webhooks {
namespace {

// The largest power of ten in a limb.
constexpr std::size_t kChunkDigits = 19;
constexpr std::uint64_t kChunk = 10'000'000'000'000'000'000U;
constexpr std::size_t kLimbBytes = sizeof(std::uint64_t);
constexpr std::size_t kLimbsMax = kBigIntegerBytesMax / kLimbBytes;

__extension__ using Wide = unsigned __int128;

// Little-endian limbs; `used` never counts leading zeros.
struct Limbs {
  std::array<std::uint64_t, kLimbsMax> limb{};
  std::size_t used = 0;
};

// limbs = limbs * factor + addend; false when that needs another limb.
bool multiply_add(Limbs& limbs, std::uint64_t factor,
                  std::uint64_t addend) noexcept {
  std::uint64_t carry = addend;
  for (std::size_t i = 0; i < limbs.used; ++i) {
    const Wide product = Wide{limbs.limb[i]} * factor + carry;
    limbs.limb[i] = static_cast<std::uint64_t>(product);
    carry = static_cast<std::uint64_t>(product >> 64);
  }
  if (carry == 0) {
    return true;
  }
  if (limbs.used == kLimbsMax) {
    return false;
  }
  limbs.limb[limbs.used++] = carry;
  return true;
}

// limbs = limbs / kChunk; returns the remainder.
std::uint64_t divide_by_chunk(Limbs& limbs) noexcept {
  std::uint64_t remainder = 0;
  for (std::size_t i = limbs.used; i-- > 0;) {
    const Wide part = (Wide{remainder} << 64) | limbs.limb[i];
    limbs.limb[i] = static_cast<std::uint64_t>(part / kChunk);
    // Modulo 2^64 on purpose: a second wide division would double the cost.
    remainder = static_cast<std::uint64_t>(part) - limbs.limb[i] * kChunk;
  }
  while (limbs.used > 0 && limbs.limb[limbs.used - 1] == 0) {
    --limbs.used;
  }
  return remainder;
}

std::uint64_t power_of_ten(std::size_t exponent) noexcept {
  std::uint64_t power = 1;
  for (std::size_t i = 0; i < exponent; ++i) {
    power *= 10;
  }
  return power;
}

}  // namespace

std::optional<std::string> decimal_from_magnitude(
    std::span<const std::uint8_t> little_endian) {
  while (!little_endian.empty() && little_endian.back() == 0) {
    little_endian = little_endian.first(little_endian.size() - 1);
  }
  if (little_endian.size() > kBigIntegerBytesMax) {
    return std::nullopt;
  }
  Limbs limbs;
  for (std::size_t i = 0; i < little_endian.size(); ++i) {
    limbs.limb[i / kLimbBytes] |= std::uint64_t{little_endian[i]}
                                  << (8 * (i % kLimbBytes));
  }
  limbs.used = (little_endian.size() + kLimbBytes - 1) / kLimbBytes;
  // Least significant chunk first, each as reversed digits.
  std::string reversed;
  reversed.reserve(kBigIntegerDigitsMax + kChunkDigits);
  while (limbs.used > 0) {
    std::uint64_t chunk = divide_by_chunk(limbs);
    for (std::size_t i = 0; i < kChunkDigits; ++i) {
      reversed.push_back(static_cast<char>('0' + chunk % 10));
      chunk /= 10;
    }
  }
  while (!reversed.empty() && reversed.back() == '0') {
    reversed.pop_back();
  }
  if (reversed.empty()) {
    return "0";
  }
  std::reverse(reversed.begin(), reversed.end());
  return reversed;
}

std::optional<std::vector<std::uint8_t>> magnitude_from_decimal(
    std::string_view digits) {
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.size() > kBigIntegerDigitsMax) {
    return std::nullopt;
  }
  Limbs limbs;
  while (!digits.empty()) {
    const std::string_view chunk = digits.substr(0, kChunkDigits);
    std::uint64_t value = 0;
    std::from_chars(chunk.data(), chunk.data() + chunk.size(), value);
    if (!multiply_add(limbs, power_of_ten(chunk.size()), value)) {
      return std::nullopt;
    }
    digits.remove_prefix(chunk.size());
  }
  std::vector<std::uint8_t> bytes(limbs.used * kLimbBytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(limbs.limb[i / kLimbBytes] >>
                                         (8 * (i % kLimbBytes)));
  }
  while (!bytes.empty() && bytes.back() == 0) {
    bytes.pop_back();
  }
  return bytes;
}

}  // namespace webhooks
