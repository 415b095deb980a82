#include "core/base64.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

using std::string_literals::operator""s;

namespace {

std::string base64(std::string_view text) {
  std::string encoded;
  webhooks::base64_append(
      {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()},
      encoded);
  return encoded;
}

}  // namespace

TEST_CASE("base64: standard, padded, canonical, nothing else") {
  const std::vector<std::pair<std::string, std::string>> rfc4648 = {
      {"", ""},
      {"f", "Zg=="},
      {"fo", "Zm8="},
      {"foo", "Zm9v"},
      {"foob", "Zm9vYg=="},
      {"fooba", "Zm9vYmE="},
      {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, encoded] : rfc4648) {
    CHECK(base64(plain) == encoded);
    std::vector<std::uint8_t> out(
        webhooks::base64_decoded_size(encoded).value());
    REQUIRE(webhooks::base64_decode(encoded, out));
    CHECK(std::string(out.begin(), out.end()) == plain);
  }
  for (const std::string& bad :
       {"Z"s, "Zg"s, "Zg="s, "Zm8"s, "Zm9vYg"s, "="s, "=="s}) {
    INFO(bad);
    CHECK_FALSE(webhooks::base64_decoded_size(bad).has_value());
  }
  for (const std::string& bad :
       {"Zh=="s, "Zm9="s, "Zm=v"s, "Z==="s, "===="s, "Zm9 "s, "Zm9\n"s, "Zm-_"s,
        "Zm9\xff"s, "\0\0\0\0"s}) {
    INFO(bad);
    std::vector<std::uint8_t> out(
        webhooks::base64_decoded_size(bad).value_or(0));
    CHECK_FALSE(webhooks::base64_decode(bad, out));
  }
  std::vector<std::uint8_t> too_small(2);
  CHECK_FALSE(webhooks::base64_decode("Zm9v", too_small));
}
