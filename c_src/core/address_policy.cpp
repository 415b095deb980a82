// Purpose: reads addresses, blocks and what an operator lets in, and judges
// addresses by the registry rows of address_table.hpp.
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

// Either family as one 128-bit number; IPv4 in its v4-mapped form.
struct Bits {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
};

constexpr Bits kMappedPrefix{0, 0x0000ffff00000000};
constexpr Bits kNat64Prefix{0x0064ff9b00000000, 0};
constexpr Bits kGlobalUnicast{0x2000000000000000, 0};
constexpr std::uint8_t kGlobalUnicastBits = 3;

// https://fetch.spec.whatwg.org/#bad-port: services that could take an HTTP
// request for a command.
constexpr auto kFetchBadPorts = std::to_array<std::uint16_t>(
    {0,    1,    7,    9,    11,   13,   15,   17,   19,   20,   21,   22,
     23,   25,   37,   42,   43,   53,   69,   77,   79,   87,   95,   101,
     102,  103,  104,  109,  110,  111,  113,  115,  117,  119,  123,  135,
     137,  139,  143,  161,  179,  389,  427,  465,  512,  513,  514,  515,
     526,  530,  531,  532,  540,  548,  554,  556,  563,  587,  601,  636,
     989,  990,  993,  995,  1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
     5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080});
static_assert(std::ranges::is_sorted(kFetchBadPorts));

// Databases, caches, brokers, and the daemons of containers and clusters, many
// of which speak HTTP and ask for no password. By their documentation:
//  SQL Server 1433 1434, Oracle 1521, Firebird 3050, MySQL 3306 33060, Postgres
//  5432, PgBouncer 6432, CouchDB 5984, Neo4j 7473 7474 7687, InfluxDB 8086,
//  Couchbase 8091 11210, ClickHouse 8123 9000 9004 9005 9009 9440, ArangoDB
//  8529, Cassandra 7199 9042 9142 9160, Elasticsearch 9200 9300, Milvus 19530,
//  CockroachDB 26257, MongoDB 27017 to 27019 28017, RethinkDB 28015 29015, Db2
//  50000; Redis 6379 6380 16379 26379, memcached 11211; MQTT 1883 8883, NSQ
//  4150 4151, NATS 4222 6222 8222, AMQP 5671 5672, RabbitMQ 4369 15671 15672
//  25672, Pulsar 6650, ActiveMQ 8161 61613 61614 61616, Kafka 9092 to 9094;
//  ZooKeeper 2181 2888 3888, Docker 2375 to 2377 4243, etcd 2379 2380 4001,
//  Nomad 4646, Kubernetes 6443 10250 10255 10257 10259 16443, Consul 8500 8501.
constexpr auto kServicePorts = std::to_array<std::uint16_t>(
    {1433,  1434,  1521,  1883,  2181,  2375,  2376,  2377,  2379,  2380,
     2888,  3050,  3306,  3888,  4001,  4150,  4151,  4222,  4243,  4369,
     4646,  5432,  5671,  5672,  5984,  6222,  6379,  6380,  6432,  6443,
     6650,  7199,  7473,  7474,  7687,  8086,  8091,  8123,  8161,  8222,
     8500,  8501,  8529,  8883,  9000,  9004,  9005,  9009,  9042,  9092,
     9093,  9094,  9142,  9160,  9200,  9300,  9440,  10250, 10255, 10257,
     10259, 11210, 11211, 15671, 15672, 16379, 16443, 19530, 25672, 26257,
     26379, 27017, 27018, 27019, 28015, 28017, 29015, 33060, 50000, 61613,
     61614, 61616});
static_assert(std::ranges::is_sorted(kServicePorts));

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

// The length of a block's prefix among the rows, where IPv4 stands in its
// v4-mapped form.
unsigned table_bits(const Cidr& block) {
  return block.prefix_bits +
         (block.network.family == IpAddress::Family::kV4 ? kMappedBits : 0U);
}

// The most specific row of an address.
struct Range {
  std::string_view reason;  // empty: reachable
  unsigned prefix_bits = 0;
};

Range range_of(Bits bits) {
  for (const AddressRow& row : address_rows()) {
    if (same_prefix(bits, {row.high, row.low}, row.prefix_bits)) {
      return {row.reason, row.prefix_bits};
    }
  }
  if (same_prefix(bits, kMappedPrefix, kMappedBits) ||
      same_prefix(bits, kGlobalUnicast, kGlobalUnicastBits)) {
    return {};
  }
  return {"not_global_unicast", kGlobalUnicastBits};
}

// A host name as a URL has it: a last label of digits would be an address.
bool is_name(std::string_view text) {
  constexpr std::size_t kNameBytesMax = 253;
  const std::string_view last = text.substr(text.rfind('.') + 1);
  return !last.empty() && text.size() <= kNameBytesMax && text.front() != '.' &&
         !std::ranges::all_of(last, is_digit) &&
         std::ranges::all_of(text, [](char c) {
           return is_letter(c) || is_digit(c) || c == '-' || c == '_' ||
                  c == '.';
         });
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

std::optional<Cidr> Cidr::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) {
    return std::nullopt;
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
    return std::nullopt;
  }
  cidr.prefix_bits = *prefix_bits;
  const Bits bits = bits_of(cidr.network);
  const unsigned kept = table_bits(cidr);
  if ((bits.high & ~upper_mask(std::min(kept, 64U))) != 0 ||
      (bits.low & ~upper_mask(kept > 64 ? kept - 64 : 0)) != 0) {
    return std::nullopt;
  }
  return cidr;
}

bool Cidr::contains(const IpAddress& address) const noexcept {
  const Bits bits = bits_of(address);
  if (network.family == IpAddress::Family::kV4) {
    return same_prefix(behind_nat64(bits), bits_of(network), table_bits(*this));
  }
  return address.family == IpAddress::Family::kV6 &&
         same_prefix(bits, bits_of(network), prefix_bits);
}

Result<AllowEntry> AllowEntry::parse(std::string_view text) {
  const Error invalid{"invalid_allow",
                      "an address, a name or a block, and a port"};
  // Of `host:port` the port; an IPv6 address has colons of its own.
  std::string_view host = text;
  std::optional<std::string_view> port;
  const std::size_t mark = text.find_first_of("]/");
  const bool marked = mark != std::string_view::npos;
  const std::size_t colon = text.find(':', marked ? mark : 0);
  if (colon != std::string_view::npos &&
      (marked || text.find(':', colon + 1) == std::string_view::npos)) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  AllowEntry entry;
  if (port == "*") {
    entry.ports = Ports::kAny;
  } else if (port) {
    const auto number = to_integer<std::uint16_t>(*port);
    if (!number || *number == 0) {
      return invalid;
    }
    entry.ports = Ports::kOne;
    entry.port = *number;
  }
  if (const auto block = Cidr::parse(host)) {
    if (block->prefix_bits == 0) {
      return Error{"allows_everything", "name the networks"};
    }
    entry.what = *block;
  } else if (is_name(host)) {
    std::string name(host);
    std::ranges::transform(name, name.begin(), to_lower);
    entry.what = std::move(name);
  } else {
    return invalid;
  }
  return entry;
}

bool AllowEntry::covers(std::uint16_t wanted) const noexcept {
  switch (ports) {
    case Ports::kWeb:
      return wanted == 80 || wanted == 443;
    case Ports::kOne:
      return wanted == port;
    case Ports::kAny:
      break;
  }
  return true;
}

AddressPolicy::AddressPolicy(std::vector<AllowEntry> allow)
    : allow_(std::move(allow)) {}

bool AddressPolicy::allows_name(std::string_view name,
                                std::uint16_t port) const {
  return std::ranges::any_of(allow_, [&](const AllowEntry& entry) {
    const auto* allowed = std::get_if<std::string>(&entry.what);
    return allowed != nullptr && *allowed == name && entry.covers(port);
  });
}

std::optional<std::string_view> AddressPolicy::judge(
    const IpAddress& address, std::uint16_t port, std::string_view name) const {
  const Range range = range_of(behind_nat64(bits_of(address)));
  const bool reachable = range.reason.empty();
  const bool allowed =
      std::ranges::any_of(allow_, [&](const AllowEntry& entry) {
        const auto* block = std::get_if<Cidr>(&entry.what);
        return block != nullptr && entry.covers(port) &&
               block->contains(address) &&
               (reachable || table_bits(*block) >= range.prefix_bits);
      });
  const bool open_to_names =
      reachable || range.reason == "private" || range.reason == "shared";
  if (allowed || (open_to_names && allows_name(name, port))) {
    return std::nullopt;
  }
  if (!reachable) {
    return range.reason;
  }
  return is_blocked_port(port) ? std::optional<std::string_view>("blocked_port")
                               : std::nullopt;
}

bool is_blocked_port(std::uint16_t port) noexcept {
  return std::ranges::binary_search(kFetchBadPorts, port) ||
         std::ranges::binary_search(kServicePorts, port);
}

}  // namespace webhooks
