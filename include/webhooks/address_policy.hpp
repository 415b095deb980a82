// Purpose: decides whether an IP address may be dialled. Strangers type the
// URLs in, so nothing inside the operator's network may be reachable.
// Source: IANA special-purpose address registries (generated table); the rule
// set is documented at AddressPolicy::judge.
// Ownership: plain values.
// Thread: any; a policy is immutable once built.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/result.hpp"

struct sockaddr;

namespace webhooks {

struct IpAddress {
  enum class Family : std::uint8_t { kV4, kV6 };
  Family family = Family::kV4;
  // Network order; a v4 address uses the first four bytes.
  std::array<std::uint8_t, 16> bytes{};

  // Canonical literals only (inet_pton's grammar): no octal, no short forms,
  // no zone id. Those spellings are curl's parser's business.
  static std::optional<IpAddress> parse(std::string_view text);
  // nullopt for anything but AF_INET and AF_INET6.
  static std::optional<IpAddress> from_sockaddr(const ::sockaddr* address);
  std::string to_string() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

struct Cidr {
  IpAddress network;
  std::uint8_t prefix_bits = 0;

  // `10.0.0.0/8`, `fd00::/8`, or a bare address (full length). Bits beyond the
  // prefix must be zero: `10.0.0.1/8` is more likely a mistake than a wish.
  // Error: `invalid_cidr`.
  static Result<Cidr> parse(std::string_view text);
  bool contains(const IpAddress& address) const noexcept;
};

class AddressPolicy {
 public:
  // Public addresses only.
  AddressPolicy() = default;
  // `allow_private` lets in loopback, RFC 1918, shared (100.64/10) and unique
  // local (fc00::/7) addresses; link-local (cloud metadata), multicast and the
  // rest stay refused. `allow` lets in what it names, whatever else says no.
  AddressPolicy(bool allow_private, std::vector<Cidr> allow);

  // nullopt: may be dialled. Otherwise why not, a static name such as
  // `loopback`, `private`, `link_local`, `multicast`, `reserved`,
  // `documentation`, `not_global_unicast`, `teredo`, `six_to_four`, `metadata`.
  //  - IPv6 only inside 2000::/3; v4-mapped and NAT64 (64:ff9b::/96) addresses
  //    are judged by the IPv4 address they carry.
  //  - the most specific registry row decides (192.0.0.9 is reachable although
  //    192.0.0.0/24 is not).
  //  - multicast, 6to4, Teredo and 168.63.129.16 (Azure's host) are refused.
  std::optional<std::string_view> judge(const IpAddress& address) const;

  bool allow_private() const noexcept { return allow_private_; }

 private:
  bool allow_private_ = false;
  std::vector<Cidr> allow_;
};

}  // namespace webhooks
