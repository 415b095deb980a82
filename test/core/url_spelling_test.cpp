#include <arpa/inet.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "address_cases.hpp"
#include "catch.hpp"
#include "url_outcome.hpp"
#include "webhooks/url.hpp"

using webhooks::check_url;
using webhooks::IpAddress;
using webhooks_test::address_cases;
using webhooks_test::any_scheme;
using webhooks_test::kReachable;

namespace {

template <class... Values>
std::string format(const char* how, Values... values) {
  char text[128];
  const int size = std::snprintf(text, sizeof text, how, values...);
  return std::string(text, static_cast<std::size_t>(size));
}

// Each character of `text` written as `make` writes it.
template <class Make>
std::string each(const std::string& text, Make&& make) {
  std::string result;
  for (const char c : text) result += make(c);
  return result;
}

std::string percent(char c) {
  return format("%%%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
}

// U+FF10.. for digits, U+3002 for the dot.
std::string full_width(char c) {
  if (c == '.') return "\u3002";
  return std::string("\xef\xbc") + static_cast<char>(0x90 + (c - '0'));
}

// U+2460.. for the digits that have a circled form.
std::string circled(char c) {
  if (c < '1' || c > '9') return std::string(1, c);
  return std::string("\xe2\x91") + static_cast<char>(0xa0 + (c - '1'));
}

// Spellings that mean the address to everyone who knows inet_aton.
std::vector<std::string> ascii_spellings(std::uint32_t address) {
  const unsigned a = address >> 24;
  const unsigned b = (address >> 16) & 255;
  const unsigned c = (address >> 8) & 255;
  const unsigned d = address & 255;
  const std::string dotted = format("%u.%u.%u.%u", a, b, c, d);
  return {
      dotted,
      dotted + ".",
      format("%u", address),
      format("0x%x", address),
      format("0X%X", address),
      format("0x%012x", address),
      format("0%o", address),
      format("%u.%u", a, address & 0xffffff),
      format("%u.%u.%u", a, b, address & 0xffff),
      format("0x%x.0x%x.0x%x.0x%x", a, b, c, d),
      format("0%o.0%o.0%o.0%o", a, b, c, d),
      format("0%o.%u.0x%x.%u", a, b, c, d),
      format("0000%o.0x0000%x.%u", a, b, address & 0xffff),
      each(dotted, percent),
      format("%u%%2e%u%%2E%u%%2e%u", a, b, c, d),
      "%30x" + format("%x", address),
  };
}

std::vector<std::string> international_spellings(std::uint32_t address) {
  const std::string dotted =
      format("%u.%u.%u.%u", address >> 24, (address >> 16) & 255,
             (address >> 8) & 255, address & 255);
  std::vector<std::string> spellings = {
      each(dotted, full_width), each(each(dotted, full_width), percent),
      dotted + "\u3002", "\u00ad" + dotted, dotted + "\u200b"};
  if (each(dotted, circled) != dotted) {
    spellings.push_back(each(dotted, circled));
  }
  return spellings;
}

std::vector<std::string> embedded_spellings(std::uint32_t address) {
  const unsigned high = address >> 16;
  const unsigned low = address & 0xffff;
  const std::string dotted =
      format("%u.%u.%u.%u", address >> 24, high & 255, low >> 8, low & 255);
  return {"[::ffff:" + dotted + "]",
          format("[::ffff:%x:%x]", high, low),
          format("[::FFFF:%04X:%04X]", high, low),
          format("[0:0:0:0:0:ffff:%x:%x]", high, low),
          "[64:ff9b::" + dotted + "]",
          format("[64:ff9b::%x:%x]", high, low)};
}

bool gets_through(const std::string& host) {
  return check_url("http://" + host + "/", any_scheme()).ok();
}

std::string dialled(const std::string& host) {
  const auto url = check_url("http://" + host + "/", any_scheme());
  return url.ok() ? url.value().host
                  : "(" + std::string(url.error().reason) + ")";
}

}  // namespace

TEST_CASE("url: an address is judged alike in every spelling") {
  std::vector<std::string> wrong;
  int spellings = 0;
  const auto expect = [&](const std::string& spelling, bool right) {
    ++spellings;
    if (!right) wrong.push_back(spelling + " -> " + dialled(spelling));
  };
  for (const auto& [text, reason] : address_cases()) {
    const bool reachable = reason == kReachable;
    const auto literal = IpAddress::parse(text);
    REQUIRE(literal.has_value());
    if (literal->family == IpAddress::Family::kV6) {
      const std::string host = "[" + std::string(text) + "]";
      expect(host, gets_through(host) == reachable);
      continue;
    }
    const auto& b = literal->bytes;
    const std::uint32_t address = (std::uint32_t{b[0]} << 24) |
                                  (std::uint32_t{b[1]} << 16) |
                                  (std::uint32_t{b[2]} << 8) | b[3];
    for (const auto& host : ascii_spellings(address)) {
      expect(host, dialled(host) ==
                       (reachable ? std::string(text) : "(blocked_address)"));
    }
    for (const auto& host : embedded_spellings(address)) {
      expect(host, gets_through(host) == reachable);
    }
    for (const auto& host : international_spellings(address)) {
      expect(host, dialled(host) == "(invalid_host)");
    }
  }
  CHECK(wrong == std::vector<std::string>{});
  CHECK(spellings > 3000);
}

TEST_CASE("url: an IPv6 literal is judged alike in every spelling") {
  for (const std::string host : {"[::1]",
                                 "[0:0:0:0:0:0:0:1]",
                                 "[0000::0001]",
                                 "[::0:1]",
                                 "[::0.0.0.1]",
                                 "[0:0:0:0:0:0:0.0.0.1]",
                                 "[FE80::1]",
                                 "[fe80:0000::1]",
                                 "[FD00::1]",
                                 "[fd00:EC2::254]",
                                 "[::]",
                                 "[0::0]",
                                 "[::127.0.0.1]",
                                 "[::7f00:1]",
                                 "[::ffff:0:127.0.0.1]",
                                 "[ff02::1]",
                                 "[2002:7f00:1::]",
                                 "[2001::1]",
                                 "[fec0::1]",
                                 "[100::1]",
                                 "[2001:db8::1]",
                                 "[3fff::1]",
                                 "[5f00::1]"}) {
    INFO(host);
    CHECK(dialled(host) == "(blocked_address)");
  }
}
