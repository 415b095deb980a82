// The UTF-8 check that all text passes.
#include "webhooks/utf8.hpp"

#include <random>
#include <string>

#include "catch.hpp"

using webhooks::utf8_error_offset;

TEST_CASE("the offset of an invalid sequence is that of its first byte") {
  CHECK_FALSE(utf8_error_offset("").has_value());
  CHECK_FALSE(utf8_error_offset("a\u00e9\u20ac\U0001F600").has_value());
  CHECK(utf8_error_offset("\u20ac\x80") == 3U);
  CHECK(utf8_error_offset("ab\xE2\x82") == 2U);
  CHECK(utf8_error_offset("\U0001F600\xF0\x9F\x98z") == 4U);
}

TEST_CASE("the scalar check and simdjson's agree on every short sequence") {
  // Padded to the length from which the vectorized check is used.
  const std::string pad(64, 'x');
  std::mt19937 random(11);
  for (std::uint32_t i = 0; i < 300'000; ++i) {
    // All pairs, then random quadruples of bytes that mean something.
    std::string text;
    if (i < 65'536) {
      text.push_back(static_cast<char>(i >> 8));
      text.push_back(static_cast<char>(i & 0xFF));
    } else {
      const auto bits = static_cast<std::uint32_t>(random());
      text = {static_cast<char>(0xC0 | (bits & 0x3F)),
              static_cast<char>(0x80 | ((bits >> 6) & 0x7F)),
              static_cast<char>(0x80 | ((bits >> 13) & 0x3F)),
              static_cast<char>(0x80 | ((bits >> 19) & 0x7F))};
    }
    INFO(i);
    REQUIRE(webhooks::is_utf8(text) == webhooks::is_utf8(pad + text));
  }
}
