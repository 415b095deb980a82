// Purpose: decides which destinations may be dialled. Strangers type the URLs
// in, so nothing inside the operator's network may be reachable unless the
// operator lets it in.
// Source: IANA special-purpose address registries (generated table); the rules
// stand at AddressPolicy.
// Ownership: plain values.
// Thread: any; a policy is immutable once built.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
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
  // no zone id. curl's parser reads those spellings before.
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
  // prefix must be zero, because `10.0.0.1/8` is most likely a mistake.
  static std::optional<Cidr> parse(std::string_view text);
  // A v4 block also contains its addresses in v4-mapped and NAT64 form; a v6
  // block contains no plain v4 address.
  bool contains(const IpAddress& address) const noexcept;
};

// What an operator lets in.
struct AllowEntry {
  enum class Ports : std::uint8_t { kWeb, kOne, kAny };

  std::variant<Cidr, std::string> what;  // a block, or a name in lower case
  Ports ports = Ports::kWeb;
  std::uint16_t port = 0;  // of kOne

  // `10.0.0.5:8080`, `10.0.0.0/8:*`, `[fd00::1]:8080`, `fd00::/8:8080` or
  // `n8n:5678`. `*` is any port. Without a port it is 80 and 443. An
  // international name is written in punycode. Errors: `invalid_allow`,
  // `allows_everything` (0.0.0.0/0 and ::/0).
  static Result<AllowEntry> parse(std::string_view text);
  bool covers(std::uint16_t wanted) const noexcept;
};

// What may be dialled:
//  - An address in a refused row: only if an entry lets it in. The most
//    specific row decides, of the IANA special-purpose registries and of our
//    additions (multicast, metadata services, the returned 3ffe::/16):
//    192.0.0.9 is reachable although 192.0.0.0/24 is not. A row that IANA does
//    not mark as globally reachable is refused, "N/A" (6to4, Teredo) and
//    deprecated ones (192.88.99.0/24, 2001:10::/28) included.
//  - No row: IPv4 is reachable, IPv6 inside 2000::/3 only. So v4-compatible
//    (::a.b.c.d), v4-translated (::ffff:0:a.b.c.d) and site-local addresses are
//    refused.
//  - v4-mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96) addresses are judged by
//    the IPv4 address they carry. NAT64 under a prefix of an operator's own,
//    other than the refused 64:ff9b:1::/48, cannot be told from any other
//    address.
//  - A reachable address: at any port but the Fetch standard's bad ones and
//    those of databases, caches, brokers and container daemons. An entry lets
//    such a port in.
//  - A block lets in the addresses of a refused row only if it lies inside that
//    row: 127.0.0.0/8 lets in loopback, and fc00::/7 not the metadata services
//    inside it. A name lets in private and shared addresses that it resolves
//    to.
class AddressPolicy {
 public:
  // Public addresses only.
  AddressPolicy() = default;
  explicit AddressPolicy(std::vector<AllowEntry> allow);

  // `name` is the host that resolved to the address; empty: the URL names the
  // address. nullopt: may be dialled. Otherwise why not, a static name:
  // `this_network`, `loopback`, `private`, `shared`, `link_local`, `metadata`,
  // `multicast`, `broadcast`, `documentation`, `benchmarking`, `teredo`,
  // `six_to_four`, `reserved`, `not_global_unicast`, `blocked_port`.
  std::optional<std::string_view> judge(const IpAddress& address,
                                        std::uint16_t port,
                                        std::string_view name) const;

  // Whether an entry lets in this name at this port. Then even a local name and
  // a port that is otherwise refused are allowed.
  bool allows_name(std::string_view name, std::uint16_t port) const;

 private:
  std::vector<AllowEntry> allow_;
};

// A port at which public addresses are not dialled.
bool is_blocked_port(std::uint16_t port) noexcept;

}  // namespace webhooks
