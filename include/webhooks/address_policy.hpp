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
  // A v4 block contains its addresses in v4-mapped and NAT64 form, too; a v6
  // block contains no plain v4 address.
  bool contains(const IpAddress& address) const noexcept;
};

class AddressPolicy {
 public:
  // Public addresses only.
  AddressPolicy() = default;
  // `allow_private` lets in loopback, RFC 1918, shared (100.64.0.0/10) and
  // unique local (fc00::/7) addresses, but for the cloud metadata services that
  // live among them; link-local, multicast and the rest stay refused. `allow`
  // lets in what it names, whatever else says no.
  AddressPolicy(bool allow_private, std::vector<Cidr> allow);

  // nullopt: may be dialled. Otherwise why not, a static name: `this_network`,
  // `loopback`, `private`, `shared`, `link_local`, `metadata`, `multicast`,
  // `broadcast`, `documentation`, `benchmarking`, `teredo`, `six_to_four`,
  // `reserved`, `not_global_unicast`.
  //  - The most specific row decides, of the IANA special-purpose registries
  //    and of our additions (multicast, metadata services, the returned
  //    3ffe::/16): 192.0.0.9 is reachable although 192.0.0.0/24 is not, and
  //    2001:20::/28 although 2001::/23 is not. A row that IANA does not mark as
  //    globally reachable is refused, "N/A" (6to4, Teredo) and deprecated ones
  //    (192.88.99.0/24, 2001:10::/28) included.
  //  - No row: IPv4 is reachable, IPv6 inside 2000::/3 only. So v4-compatible
  //    (::a.b.c.d), v4-translated (::ffff:0:a.b.c.d) and site-local addresses
  //    are refused.
  //  - v4-mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96) addresses are judged
  //    by the IPv4 address they carry. NAT64 under a prefix of an operator's
  //    own, other than the refused 64:ff9b:1::/48, cannot be told from any
  //    other address.
  std::optional<std::string_view> judge(const IpAddress& address) const;

  bool allow_private() const noexcept { return allow_private_; }

 private:
  bool allow_private_ = false;
  std::vector<Cidr> allow_;
};

}  // namespace webhooks
