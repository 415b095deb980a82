#include "webhooks/address_policy.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstring>
#include <string>
#include <vector>

#include "address_cases.hpp"
#include "catch.hpp"
#include "core/address_table.hpp"

using webhooks::address_rows;
using webhooks::AddressPolicy;
using webhooks::Cidr;
using webhooks::IpAddress;
using webhooks_test::address_cases;
using webhooks_test::kReachable;

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
  REQUIRE(parsed.ok());
  return parsed.value();
}

AddressPolicy allowing(std::string_view block) {
  return AddressPolicy(false, {cidr(block)});
}

std::string_view verdict(const AddressPolicy& policy, std::string_view text) {
  return policy.judge(ip(text)).value_or(kReachable);
}

}  // namespace

TEST_CASE("addresses: every row's bounds, embedded and ordinary ones") {
  const AddressPolicy policy;
  std::vector<std::string> wrong;
  for (const auto& [text, reason] : address_cases()) {
    if (verdict(policy, text) != reason) wrong.emplace_back(text);
  }
  CHECK(wrong == std::vector<std::string>{});
  CHECK(address_cases().size() >= 270);
}

TEST_CASE("addresses: allow_private opens private networks and no more") {
  const AddressPolicy policy(true, {});
  std::vector<std::string> wrong;
  for (const auto& [text, reason] : address_cases()) {
    const bool opened =
        reason == "loopback" || reason == "private" || reason == "shared";
    if (verdict(policy, text) != (opened ? kReachable : reason)) {
      wrong.emplace_back(text);
    }
  }
  CHECK(wrong == std::vector<std::string>{});
  // What would hurt most, by name.
  CHECK(verdict(policy, "169.254.169.254") == "link_local");
  CHECK(verdict(policy, "fd00:ec2::254") == "metadata");
  CHECK(verdict(policy, "::ffff:169.254.169.254") == "link_local");
  CHECK(verdict(policy, "64:ff9b::a9fe:a9fe") == "link_local");
  CHECK(verdict(policy, "0.0.0.0") == "this_network");
  CHECK(policy.allow_private());
  CHECK_FALSE(AddressPolicy().allow_private());
}

TEST_CASE("addresses: the table is ordered and knows the rows it must") {
  std::uint8_t previous = 128;
  for (const auto& row : address_rows()) {
    CHECK(row.prefix_bits <= previous);
    previous = row.prefix_bits;
  }
  CHECK(address_rows().size() >= 58);
}

TEST_CASE("addresses: an allowed block beats every refusal") {
  CHECK(verdict(allowing("10.1.0.0/16"), "10.1.255.255") == kReachable);
  CHECK(verdict(allowing("10.1.0.0/16"), "10.2.0.0") == "private");
  CHECK(verdict(allowing("169.254.169.254"), "169.254.169.254") == kReachable);
  CHECK(verdict(allowing("169.254.169.254"), "169.254.169.253") ==
        "link_local");
  CHECK(verdict(allowing("fd00:ec2::254"), "fd00:ec2::254") == kReachable);
  CHECK(verdict(allowing("fe80::/10"), "fe80::1") == kReachable);
  CHECK(verdict(allowing("ff02::/16"), "ff02::1") == kReachable);
  CHECK(verdict(allowing("2002::/16"), "2002:7f00:1::") == kReachable);
  CHECK(verdict(allowing("0.0.0.0/0"), "127.0.0.1") == kReachable);
  CHECK(verdict(allowing("::/0"), "::1") == kReachable);
  CHECK(verdict(AddressPolicy(true, {cidr("169.254.0.0/16")}), "10.0.0.1") ==
        kReachable);
}

TEST_CASE("addresses: a v4 block matches the forms that carry its addresses") {
  const AddressPolicy policy = allowing("10.0.0.0/8");
  CHECK(verdict(policy, "::ffff:10.9.8.7") == kReachable);
  CHECK(verdict(policy, "64:ff9b::10.9.8.7") == kReachable);
  CHECK(verdict(policy, "::ffff:11.0.0.1") == kReachable);  // public anyway
  CHECK(verdict(policy, "::ffff:192.168.0.1") == "private");
  CHECK(verdict(policy, "64:ff9b::192.168.0.1") == "private");
  CHECK(verdict(policy, "::10.9.8.7") == "not_global_unicast");
  CHECK(verdict(policy, "2002:a09:807::") == "six_to_four");
  // Every v4 address, and still no v6 one.
  CHECK(verdict(allowing("0.0.0.0/0"), "::1") == "loopback");
  CHECK(verdict(allowing("0.0.0.0/0"), "fe80::1") == "link_local");
  // A v6 block means v6 addresses, however it was written.
  CHECK(verdict(allowing("::/0"), "10.0.0.1") == "private");
  CHECK(verdict(allowing("::ffff:10.0.0.0/104"), "10.0.0.1") == "private");
  CHECK(verdict(allowing("::ffff:10.0.0.0/104"), "::ffff:10.0.0.1") ==
        kReachable);
  CHECK(verdict(allowing("64:ff9b::/96"), "64:ff9b::10.0.0.1") == kReachable);
}

TEST_CASE("addresses: literals in inet_pton's grammar only") {
  for (const std::string_view good :
       {"1.2.3.4", "0.0.0.0", "255.255.255.255", "::", "::1", "1::", "fe80::1",
        "2001:db8:0:0:1:0:0:1", "::ffff:1.2.3.4", "64:ff9b::192.0.2.33",
        "ABCD:EF01:2345:6789:ABCD:EF01:2345:6789"}) {
    INFO(good);
    CHECK(IpAddress::parse(good).has_value());
  }
  for (const std::string_view bad :
       {"",
        "1",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "0x7f.0.0.1",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4\n",
        "1.2.3.-4",
        "fe80::1%eth0",
        "[::1]",
        "::1::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "::ffff:1.2.3",
        "localhost",
        "1.2.3.4/32",
        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"}) {
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

TEST_CASE("addresses: out of what a socket would dial") {
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
  for (const std::string_view bad :
       {"",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/8/8",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/-1",
        "10.0.0.0/ 8",
        "10.0.0.0/8 ",
        "10.0.0.0/8x",
        "10.0.0.0/4294967304",
        "10.0.0.1/8",
        "10.0.0.1/31",
        "0.0.0.1/0",
        "fd00::1/8",
        "::1/0",
        "2001:db8::1/64",
        "2001:db8:0:1::/63",
        "2001:db8::/16",
        "10.0.0/8",
        "10/8",
        "a/8",
        "*",
        "fe80::%1/64",
        "::ffff:10.0.0.0/95",
        "10.0.0.0/00000000000000000000000000000000000000000008"}) {
    INFO(bad);
    const auto parsed = Cidr::parse(bad);
    REQUIRE_FALSE(parsed.ok());
    CHECK(parsed.error().reason == "invalid_cidr");
  }
}
