#include "webhooks/address_policy.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstring>
#include <string>
#include <vector>

#include "address_cases.hpp"
#include "allowing.hpp"
#include "catch.hpp"
#include "core/address_table.hpp"

using webhooks::address_rows;
using webhooks::AddressPolicy;
using webhooks::AllowEntry;
using webhooks::Cidr;
using webhooks::IpAddress;
using webhooks_test::address_cases;
using webhooks_test::allowing;
using webhooks_test::kReachable;
using webhooks_test::words;

namespace {

IpAddress ip(std::string_view text) {
  INFO(text);
  const auto address = IpAddress::parse(text);
  REQUIRE(address.has_value());
  return *address;
}

Cidr cidr(std::string_view text) {
  INFO(text);
  const auto parsed = Cidr::parse(text);
  REQUIRE(parsed.has_value());
  return *parsed;
}

std::string_view verdict(const AddressPolicy& policy, std::string_view text,
                         std::uint16_t port = 443, std::string_view name = {}) {
  return policy.judge(ip(text), port, name).value_or(kReachable);
}

// The cases in which a policy decides otherwise than `expected`, which gets the
// reason of a case.
template <class Expected>
std::vector<std::string> wrong(const AddressPolicy& policy,
                               std::string_view name, Expected&& expected) {
  std::vector<std::string> found;
  for (const auto& [text, reason] : address_cases()) {
    if (verdict(policy, text, 443, name) != expected(reason)) {
      found.emplace_back(text);
    }
  }
  return found;
}

}  // namespace

TEST_CASE("addresses: the bounds of every row, embedded in IPv6 too") {
  const auto same = [](std::string_view reason) { return reason; };
  CHECK(wrong(AddressPolicy(), {}, same) == std::vector<std::string>{});
  CHECK(address_cases().size() >= 270);
}

TEST_CASE("addresses: the table is ordered and knows the rows it must") {
  std::uint8_t previous = 128;
  for (const auto& row : address_rows()) {
    CHECK(row.prefix_bits <= previous);
    previous = row.prefix_bits;
  }
  CHECK(address_rows().size() >= 58);
}

TEST_CASE("addresses: a name entry lets in private ranges only") {
  const AddressPolicy policy = allowing("n8n:443");
  const auto opened = [](std::string_view reason) {
    return reason == "private" || reason == "shared" ? kReachable : reason;
  };
  CHECK(wrong(policy, "n8n", opened) == std::vector<std::string>{});
  CHECK(verdict(policy, "10.0.0.1", 443, "other") == "private");
  CHECK(verdict(policy, "10.0.0.1", 443, "") == "private");
  CHECK(verdict(policy, "10.0.0.1", 80, "n8n") == "private");
  CHECK(policy.allows_name("n8n", 443));
  CHECK_FALSE(policy.allows_name("n8n", 80));
  CHECK_FALSE(policy.allows_name("n8n.example", 443));
}

TEST_CASE("addresses: a block inside a refused row lets it in") {
  struct Case {
    std::string_view entry;
    std::string_view address;
    std::string_view verdict;
  };
  for (const auto& [entry, address, expected] : std::vector<Case>{
           {"10.1.0.0/16", "10.1.255.255", kReachable},
           {"10.1.0.0/16", "10.2.0.0", "private"},
           {"10.0.0.0/8", "10.0.0.1", kReachable},
           {"10.0.0.0/7", "10.0.0.1", "private"},
           {"127.0.0.0/8", "127.0.0.1", kReachable},
           {"126.0.0.0/7", "127.0.0.1", "loopback"},
           {"128.0.0.0/1", "192.168.0.1", "private"},
           {"128.0.0.0/1", "169.254.169.254", "link_local"},
           {"169.254.169.254", "169.254.169.254", kReachable},
           {"169.254.169.254", "169.254.169.253", "link_local"},
           {"100.64.0.0/10", "100.64.0.1", kReachable},
           {"100.64.0.0/10", "100.100.100.200", "metadata"},
           {"100.100.100.200", "100.100.100.200", kReachable},
           {"fc00::/7", "fd00::1", kReachable},
           {"fc00::/7", "fd00:ec2::254", "metadata"},
           {"fd00:ec2::254", "fd00:ec2::254", kReachable},
           {"fe80::/10", "fe80::1", kReachable},
           {"fc00::/6", "fe80::1", "link_local"},
           {"ff02::/16", "ff02::1", kReachable},
           {"2002::/16", "2002:7f00:1::", kReachable},
           {"fec0::/10", "fec0::1", kReachable},
           {"8000::/1", "fec0::1", "not_global_unicast"},
           {"::/1", "::1", "loopback"},
           // A v4 block means its addresses in every form that carries them.
           {"10.0.0.0/8", "::ffff:10.9.8.7", kReachable},
           {"10.0.0.0/8", "64:ff9b::10.9.8.7", kReachable},
           {"10.0.0.0/8", "::ffff:192.168.0.1", "private"},
           {"10.0.0.0/8", "64:ff9b::192.168.0.1", "private"},
           {"10.0.0.0/8", "::10.9.8.7", "not_global_unicast"},
           {"10.0.0.0/8", "2002:a09:807::", "six_to_four"},
           // A v6 block means v6 addresses, however it was written.
           {"::ffff:10.0.0.0/104", "10.0.0.1", "private"},
           {"::ffff:10.0.0.0/104", "::ffff:10.0.0.1", kReachable},
           {"64:ff9b::10.0.0.0/104", "64:ff9b::10.0.0.1", kReachable},
           {"64:ff9b::/96", "64:ff9b::10.0.0.1", "private"}}) {
    INFO(entry << " " << address);
    CHECK(verdict(allowing(entry), address) == expected);
  }
}

TEST_CASE("addresses: entries open ports that are refused otherwise") {
  const AddressPolicy none;
  CHECK(verdict(none, "8.8.8.8", 8443) == kReachable);
  for (const std::uint16_t port : std::vector<std::uint16_t>{
           22, 25, 2375, 5432, 6379, 8123, 9000, 11211}) {
    INFO(port);
    CHECK(verdict(none, "8.8.8.8", port) == "blocked_port");
    CHECK(verdict(none, "2606:4700::1", port) == "blocked_port");
    CHECK(verdict(none, "10.0.0.1", port) == "private");
    CHECK(verdict(allowing("10.0.0.0/8"), "10.0.0.1", port) == "private");
    CHECK(verdict(allowing("10.0.0.0/8:*"), "10.0.0.1", port) == kReachable);
    CHECK(verdict(allowing("8.8.8.8:*"), "8.8.8.8", port) == kReachable);
    CHECK(verdict(allowing("8.8.8.8"), "8.8.8.8", port) == "blocked_port");
    CHECK(verdict(allowing("db.example:*"), "8.8.8.8", port, "db.example") ==
          kReachable);
  }
  const AddressPolicy web = allowing("10.0.0.1 [fd00::1]:8080");
  CHECK(verdict(web, "10.0.0.1", 80) == kReachable);
  CHECK(verdict(web, "10.0.0.1", 443) == kReachable);
  CHECK(verdict(web, "10.0.0.1", 8080) == "private");
  CHECK(verdict(web, "fd00::1", 8080) == kReachable);
  CHECK(verdict(web, "fd00::1", 443) == "private");
}

TEST_CASE("addresses: entries are parsed") {
  for (const std::string_view text :
       words("10.0.0.5 10.0.0.5:8080 10.0.0.5:* 10.0.0.0/8 10.0.0.0/8:443 "
             "10.0.0.0/8:* fd00::1 [fd00::1] [fd00::1]:8080 [fd00::1]:* ::1 "
             "[::1]:* fd00::/8 fd00::/8:8080 fd00::/8:* [fd00::/8]:8080 n8n "
             "n8n:5678 N8N:* home-assistant:8123 a.b.example:65535 my_app:80 "
             "xn--bcher-kva.example 0.0.0.0/1 ::/1 10.0.0.1/32 1.example")) {
    INFO(text);
    CHECK(AllowEntry::parse(text).ok());
  }
  CHECK(allowing("N8N:5678").allows_name("n8n", 5678));
  for (const std::string_view text : words("0.0.0.0/0 0.0.0.0/0:* ::/0 "
                                           "::/0:443 [::/0]:*")) {
    INFO(text);
    CHECK(AllowEntry::parse(text).error().reason == "allows_everything");
  }
  for (const std::string_view text :
       words("* : :80 *:* 10.0.0.5: 10.0.0.5:0 10.0.0.5:65536 10.0.0.5:-1 "
             "10.0.0.5:+80 10.0.0.5:http 10.0.0.5:80:80 10.0.0.1/8 "
             "10.0.0.0/33 10.0.0.0/8/8 10.0.0/8 10.0.0.0/ 300.1.1.1 1 "
             "fd00::1/8 ::/129 fe80::1%1 [fd00::1 fd00::1] [] []:80 "
             "http://n8n n8n/ n8n:5678/ .n8n n8n. a@b b\u00fccher.example "
             "*.example n8n:**")) {
    INFO(text);
    const auto entry = AllowEntry::parse(text);
    REQUIRE_FALSE(entry.ok());
    CHECK(entry.error().reason == "invalid_allow");
  }
  CHECK_FALSE(AllowEntry::parse("").ok());
  CHECK_FALSE(AllowEntry::parse("n8n 5678").ok());
  CHECK_FALSE(AllowEntry::parse(std::string(254, 'a')).ok());
}

TEST_CASE("addresses: literals in inet_pton's grammar only") {
  for (const std::string_view good :
       {"1.2.3.4", "0.0.0.0", "255.255.255.255", "::", "::1", "1::", "fe80::1",
        "2001:db8:0:0:1:0:0:1", "::ffff:1.2.3.4", "64:ff9b::192.0.2.33",
        "ABCD:EF01:2345:6789:ABCD:EF01:2345:6789"}) {
    INFO(good);
    CHECK(IpAddress::parse(good).has_value());
  }
  CHECK_FALSE(IpAddress::parse("").has_value());
  CHECK_FALSE(IpAddress::parse("1.2.3.4 ").has_value());
  CHECK_FALSE(IpAddress::parse(" 1.2.3.4").has_value());
  CHECK_FALSE(IpAddress::parse("1.2.3.4\n").has_value());
  for (const std::string_view bad :
       words("1 1.2.3 1.2.3.4.5 256.1.1.1 01.2.3.4 0x7f.0.0.1 1.2.3.-4 "
             "fe80::1%eth0 [::1] ::1:: 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 12345:: "
             "::ffff:1.2.3 localhost 1.2.3.4/32 "
             "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000")) {
    INFO(bad);
    CHECK_FALSE(IpAddress::parse(bad).has_value());
  }
  using std::string_view_literals::operator""sv;
  CHECK_FALSE(IpAddress::parse("1.2.3.4\0"sv).has_value());
  CHECK_FALSE(IpAddress::parse("8.8.8.8\0.evil"sv).has_value());
}

TEST_CASE("addresses: text forms are canonical") {
  CHECK(ip("1.2.3.4").to_string() == "1.2.3.4");
  CHECK(ip("2001:0DB8:0:0:0:0:0:1").to_string() == "2001:db8::1");
  CHECK(ip("::FFFF:1.2.3.4").to_string() == "::ffff:1.2.3.4");
  CHECK(ip("::ffff:102:304").to_string() == "::ffff:1.2.3.4");
  CHECK(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").to_string() ==
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  CHECK(ip("::1") == ip("0:0:0:0:0:0:0:1"));
  CHECK_FALSE(ip("1.2.3.4") == ip("::ffff:1.2.3.4"));
}

TEST_CASE("addresses: are read from a socket address") {
  ::sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(443);
  REQUIRE(inet_pton(AF_INET, "192.0.2.1", &v4.sin_addr) == 1);
  CHECK(IpAddress::from_sockaddr(reinterpret_cast<::sockaddr*>(&v4)) ==
        ip("192.0.2.1"));

  ::sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_scope_id = 3;
  REQUIRE(inet_pton(AF_INET6, "fe80::2", &v6.sin6_addr) == 1);
  CHECK(IpAddress::from_sockaddr(reinterpret_cast<::sockaddr*>(&v6)) ==
        ip("fe80::2"));

  // Not aligned for the larger types, as inside a packed buffer.
  std::vector<char> buffer(sizeof v4 + 2);
  std::memcpy(buffer.data() + 2, &v4, sizeof v4);
  CHECK(IpAddress::from_sockaddr(reinterpret_cast<::sockaddr*>(
            buffer.data() + 2)) == ip("192.0.2.1"));

  ::sockaddr_un path{};
  path.sun_family = AF_UNIX;
  CHECK_FALSE(IpAddress::from_sockaddr(reinterpret_cast<::sockaddr*>(&path)));
  CHECK_FALSE(IpAddress::from_sockaddr(nullptr));
}

TEST_CASE("addresses: CIDR blocks") {
  CHECK(cidr("10.0.0.0/8").prefix_bits == 8);
  CHECK(cidr("10.0.0.1").prefix_bits == 32);
  CHECK(cidr("10.0.0.1/32").prefix_bits == 32);
  CHECK(cidr("0.0.0.0/0").prefix_bits == 0);
  CHECK(cidr("::/0").prefix_bits == 0);
  CHECK(cidr("fd00::/8").prefix_bits == 8);
  CHECK(cidr("::1").prefix_bits == 128);
  CHECK(cidr("2001:db8:8000::/33").prefix_bits == 33);
  CHECK(cidr("2001:db8:0:0:8000::/65").prefix_bits == 65);
  CHECK(cidr("128.0.0.0/1").contains(ip("255.0.0.1")));
  CHECK_FALSE(cidr("128.0.0.0/1").contains(ip("127.255.255.255")));
  CHECK(cidr("2001:db8::/64").contains(ip("2001:db8::ffff:0:0:1")));
  CHECK_FALSE(cidr("2001:db8::/64").contains(ip("2001:db8:0:1::")));
  CHECK(cidr("2001:db8::/65").contains(ip("2001:db8::7fff:0:0:1")));
  CHECK_FALSE(cidr("2001:db8::/65").contains(ip("2001:db8::8000:0:0:1")));
  CHECK_FALSE(cidr("::1/128").contains(ip("::2")));
  CHECK_FALSE(cidr("::/0").contains(ip("1.2.3.4")));
  CHECK_FALSE(Cidr::parse("").has_value());
  CHECK_FALSE(Cidr::parse("10.0.0.0/ 8").has_value());
  CHECK_FALSE(Cidr::parse("10.0.0.0/8 ").has_value());
  for (const std::string_view bad :
       words("/ 10.0.0.0/ 10.0.0.0/33 ::/129 10.0.0.0/8/8 10.0.0.0/08 "
             "10.0.0.0/+8 10.0.0.0/-1 10.0.0.0/8x 10.0.0.0/4294967304 "
             "10.0.0.1/8 10.0.0.1/31 0.0.0.1/0 fd00::1/8 ::1/0 2001:db8::1/64 "
             "2001:db8:0:1::/63 2001:db8::/16 10.0.0/8 10/8 a/8 * fe80::%1/64 "
             "::ffff:10.0.0.0/95 10.0.0.0/000000000000000000000000000008")) {
    INFO(bad);
    CHECK_FALSE(Cidr::parse(bad).has_value());
  }
}
