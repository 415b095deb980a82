// Purpose: reads addresses and CIDRs, and judges addresses by the registry
// rows of address_table.hpp.
// Ownership: plain values.
// Thread: any.
#include "webhooks/address_policy.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/address_table.hpp"
#include "core/ascii.hpp"

namespace webhooks {
namespace {

constexpr std::size_t kV4Bytes = 4;
constexpr std::uint8_t kV4Bits = 32;
constexpr std::uint8_t kV6Bits = 128;
constexpr std::uint8_t kMappedBits = 96;
constexpr std::size_t kCidrBytesMax = INET6_ADDRSTRLEN + 4;

// Either family as one 128-bit number; IPv4 in its v4-mapped form.
struct Bits {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
};

constexpr Bits kMappedPrefix{0, 0x0000ffff00000000};
constexpr Bits kNat64Prefix{0x0064ff9b00000000, 0};
constexpr Bits kGlobalUnicast{0x2000000000000000, 0};
constexpr std::uint8_t kGlobalUnicastBits = 3;

std::uint64_t big_endian(const std::uint8_t* bytes, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count; ++i) {
    value = (value << 8) | bytes[i];
  }
  return value;
}

Bits bits_of(const IpAddress& address) {
  const std::uint8_t* bytes = address.bytes.data();
  if (address.family == IpAddress::Family::kV4) {
    return {0, kMappedPrefix.low | big_endian(bytes, kV4Bytes)};
  }
  return {big_endian(bytes, 8), big_endian(bytes + 8, 8)};
}

// The upper `count` bits set; shifting by 64 would be undefined.
std::uint64_t upper_mask(unsigned count) {
  return count == 0 ? 0 : ~std::uint64_t{0} << (64 - count);
}

bool same_prefix(Bits a, Bits b, unsigned prefix_bits) {
  const std::uint64_t high = upper_mask(std::min(prefix_bits, 64U));
  const std::uint64_t low = prefix_bits > 64 ? upper_mask(prefix_bits - 64) : 0;
  return ((a.high ^ b.high) & high) == 0 && ((a.low ^ b.low) & low) == 0;
}

// What a NAT64 gateway would dial: the IPv4 address in the last 32 bits.
Bits behind_nat64(Bits bits) {
  if (!same_prefix(bits, kNat64Prefix, kMappedBits)) {
    return bits;
  }
  return {0, kMappedPrefix.low | bits.low};
}

bool is_private_reason(std::string_view reason) {
  return reason == "loopback" || reason == "private" || reason == "shared";
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.size() >= INET6_ADDRSTRLEN ||
      text.find('\0') != std::string_view::npos) {
    return std::nullopt;
  }
  std::array<char, INET6_ADDRSTRLEN> terminated{};
  std::ranges::copy(text, terminated.begin());
  IpAddress address;
  if (inet_pton(AF_INET, terminated.data(), address.bytes.data()) == 1) {
    return address;
  }
  address.family = Family::kV6;
  if (inet_pton(AF_INET6, terminated.data(), address.bytes.data()) == 1) {
    return address;
  }
  return std::nullopt;
}

std::optional<IpAddress> IpAddress::from_sockaddr(const ::sockaddr* address) {
  if (address == nullptr) {
    return std::nullopt;
  }
  IpAddress result;
  // Copied out byte for byte: the caller's buffer need not be aligned for the
  // larger types.
  if (address->sa_family == AF_INET) {
    ::sockaddr_in v4;
    std::memcpy(&v4, address, sizeof v4);
    std::memcpy(result.bytes.data(), &v4.sin_addr, kV4Bytes);
    return result;
  }
  if (address->sa_family == AF_INET6) {
    ::sockaddr_in6 v6;
    std::memcpy(&v6, address, sizeof v6);
    result.family = Family::kV6;
    std::memcpy(result.bytes.data(), &v6.sin6_addr, result.bytes.size());
    return result;
  }
  return std::nullopt;
}

std::string IpAddress::to_string() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const int domain = family == Family::kV4 ? AF_INET : AF_INET6;
  inet_ntop(domain, bytes.data(), text.data(), text.size());
  return text.data();
}

Result<Cidr> Cidr::parse(std::string_view text) {
  const Error invalid{"invalid_cidr", "an address, a slash, a prefix length"};
  if (text.size() > kCidrBytesMax) {
    return invalid;
  }
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) {
    return invalid;
  }
  const bool v4 = address->family == IpAddress::Family::kV4;
  Cidr cidr{*address, v4 ? kV4Bits : kV6Bits};
  if (slash == std::string_view::npos) {
    return cidr;
  }

  const std::string_view digits = text.substr(slash + 1);
  const auto prefix_bits = to_integer<std::uint8_t>(digits);
  if (!prefix_bits || *prefix_bits > cidr.prefix_bits ||
      (digits.size() > 1 && digits.front() == '0')) {
    return invalid;
  }
  cidr.prefix_bits = *prefix_bits;

  const Bits bits = bits_of(cidr.network);
  const unsigned kept = *prefix_bits + (v4 ? kMappedBits : 0U);
  const std::uint64_t beyond_high = ~upper_mask(std::min(kept, 64U));
  const std::uint64_t beyond_low =
      kept > 64 ? ~upper_mask(kept - 64) : ~std::uint64_t{0};
  if ((bits.high & beyond_high) != 0 || (bits.low & beyond_low) != 0) {
    return Error{"invalid_cidr", "bits are set beyond the prefix length"};
  }
  return cidr;
}

bool Cidr::contains(const IpAddress& address) const noexcept {
  const Bits bits = bits_of(address);
  if (network.family == IpAddress::Family::kV4) {
    return same_prefix(behind_nat64(bits), bits_of(network),
                       unsigned{kMappedBits} + prefix_bits);
  }
  return address.family == IpAddress::Family::kV6 &&
         same_prefix(bits, bits_of(network), prefix_bits);
}

AddressPolicy::AddressPolicy(bool allow_private, std::vector<Cidr> allow)
    : allow_private_(allow_private), allow_(std::move(allow)) {}

std::optional<std::string_view> AddressPolicy::judge(
    const IpAddress& address) const {
  if (std::ranges::any_of(
          allow_, [&](const Cidr& cidr) { return cidr.contains(address); })) {
    return std::nullopt;
  }
  const Bits bits = behind_nat64(bits_of(address));
  for (const AddressRow& row : address_rows()) {
    if (!same_prefix(bits, {row.high, row.low}, row.prefix_bits)) {
      continue;
    }
    if (row.reason.empty() ||
        (allow_private_ && is_private_reason(row.reason))) {
      return std::nullopt;
    }
    return row.reason;
  }
  if (same_prefix(bits, kMappedPrefix, kMappedBits) ||
      same_prefix(bits, kGlobalUnicast, kGlobalUnicastBits)) {
    return std::nullopt;
  }
  return "not_global_unicast";
}

}  // namespace webhooks
