// Values that JSON has no form of its own for, and how they become text: big
// integers, dates and times, decimals; and the UTF-8 check all text passes.
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"
#include "webhooks/big_integer.hpp"
#include "webhooks/decimal_text.hpp"
#include "webhooks/iso8601.hpp"
#include "webhooks/utf8.hpp"

using webhooks::decimal_from_magnitude;
using webhooks::decimal_text;
using webhooks::Iso8601Text;
using webhooks::kBigIntegerBytesMax;
using webhooks::kBigIntegerDigitsMax;
using webhooks::magnitude_from_decimal;
using webhooks::utf8_error_offset;
using Bytes = std::vector<std::uint8_t>;

namespace {

std::string date(std::int64_t year, std::int64_t month, std::int64_t day) {
  Iso8601Text text;
  return text.date({year, month, day}) ? std::string(text.view()) : "refused";
}

std::string time(const webhooks::ClockTime& time) {
  Iso8601Text text;
  return text.time(time) ? std::string(text.view()) : "refused";
}

std::string offset(std::int64_t utc, std::int64_t std, bool is_utc = false) {
  Iso8601Text text;
  return text.offset({utc, std, is_utc}) ? std::string(text.view()) : "refused";
}

std::string decimal(bool negative, std::string_view digits,
                    std::int64_t exponent) {
  return decimal_text(negative, digits, exponent).value_or("refused");
}

}  // namespace

TEST_CASE("big integers: known values in both directions") {
  const struct {
    Bytes bytes;
    std::string_view digits;
  } known[] = {
      {{}, "0"},
      {{1}, "1"},
      {{0, 1}, "256"},
      {Bytes(8, 0xFF), "18446744073709551615"},
      {{0, 0, 0, 0, 0, 0, 0, 0, 1}, "18446744073709551616"},
      // 10^19 and its neighbours: the size of a chunk of digits.
      {{0xFF, 0xFF, 0xE7, 0x89, 0x04, 0x23, 0xC7, 0x8A}, "9999999999999999999"},
      {{0, 0, 0xE8, 0x89, 0x04, 0x23, 0xC7, 0x8A}, "10000000000000000000"},
      {Bytes(16, 0xFF), "340282366920938463463374607431768211455"}};
  for (const auto& [bytes, digits] : known) {
    INFO(digits);
    CHECK(decimal_from_magnitude(bytes) == digits);
    CHECK(magnitude_from_decimal(digits) == bytes);
  }
  CHECK(decimal_from_magnitude(Bytes{7, 0, 0, 0}) == "7");
  CHECK(magnitude_from_decimal("000123") == Bytes{123});
  CHECK(magnitude_from_decimal("0000") == Bytes{});
}

TEST_CASE("big integers: there and back, at every length") {
  std::mt19937 random(7);
  for (std::size_t size = 1; size <= kBigIntegerBytesMax; ++size) {
    Bytes bytes(size);
    for (std::uint8_t& byte : bytes) {
      byte = static_cast<std::uint8_t>(random());
    }
    bytes.back() = static_cast<std::uint8_t>(bytes.back() | 1U);
    const std::optional<std::string> digits = decimal_from_magnitude(bytes);
    REQUIRE(digits.has_value());
    CHECK(digits->front() != '0');
    CHECK(magnitude_from_decimal(*digits) == bytes);
  }
}

TEST_CASE("big integers end below 2^4096") {
  const Bytes largest(kBigIntegerBytesMax, 0xFF);
  const std::optional<std::string> digits = decimal_from_magnitude(largest);
  REQUIRE(digits.has_value());
  CHECK(digits->size() == kBigIntegerDigitsMax);
  CHECK(magnitude_from_decimal(*digits) == largest);
  std::string next = *digits;
  REQUIRE(next.back() == '5');
  next.back() = '6';
  CHECK_FALSE(magnitude_from_decimal(next).has_value());
  CHECK_FALSE(magnitude_from_decimal(*digits + "0").has_value());
  Bytes longer(kBigIntegerBytesMax + 1, 0);
  CHECK(decimal_from_magnitude(longer) == "0");
  longer.back() = 1;
  CHECK_FALSE(decimal_from_magnitude(longer).has_value());
}

TEST_CASE("dates: every month's end, leap years, signs") {
  CHECK(date(2026, 11, 23) == "2026-11-23");
  CHECK(date(0, 1, 1) == "0000-01-01");
  CHECK(date(-1, 12, 31) == "-0001-12-31");
  CHECK(date(9999, 12, 31) == "9999-12-31");
  CHECK(date(-9999, 1, 1) == "-9999-01-01");
  CHECK(date(10000, 1, 1) == "refused");
  CHECK(date(-10000, 1, 1) == "refused");
  CHECK(date(INT64_MIN, 1, 1) == "refused");
  CHECK(date(INT64_MAX, 1, 1) == "refused");
  const std::vector<std::int64_t> days = {31, 28, 31, 30, 31, 30,
                                          31, 31, 30, 31, 30, 31};
  for (std::size_t month = 1; month <= 12; ++month) {
    const auto number = static_cast<std::int64_t>(month);
    CHECK(date(2023, number, days[month - 1]) != "refused");
    CHECK(date(2023, number, days[month - 1] + 1) == "refused");
    CHECK(date(2023, number, 0) == "refused");
  }
  CHECK(date(2024, 2, 29) == "2024-02-29");
  CHECK(date(2000, 2, 29) == "2000-02-29");
  CHECK(date(1900, 2, 29) == "refused");
  CHECK(date(-4, 2, 29) == "-0004-02-29");
  CHECK(date(-100, 2, 29) == "refused");
  CHECK(date(0, 2, 29) == "0000-02-29");
  CHECK(date(2024, 0, 1) == "refused");
  CHECK(date(2024, 13, 1) == "refused");
  CHECK(date(2024, INT64_MIN, INT64_MAX) == "refused");
}

TEST_CASE("times show as many digits as they claim") {
  CHECK(time({0, 0, 0, 0, 0}) == "00:00:00");
  CHECK(time({23, 59, 59, 999'999, 6}) == "23:59:59.999999");
  CHECK(time({1, 2, 3, 4, 6}) == "01:02:03.000004");
  CHECK(time({1, 2, 3, 120'000, 3}) == "01:02:03.120");
  CHECK(time({1, 2, 3, 123'456, 1}) == "01:02:03.1");
  CHECK(time({1, 2, 3, 123'456, 0}) == "01:02:03");
  for (const webhooks::ClockTime& wrong : {webhooks::ClockTime{24, 0, 0, 0, 0},
                                           {-1, 0, 0, 0, 0},
                                           {0, 60, 0, 0, 0},
                                           {0, -1, 0, 0, 0},
                                           {0, 0, 60, 0, 0},
                                           {0, 0, -1, 0, 0},
                                           {0, 0, 0, 1'000'000, 6},
                                           {0, 0, 0, -1, 6},
                                           {0, 0, 0, 0, 7},
                                           {0, 0, 0, 0, -1},
                                           {INT64_MAX, 0, 0, 0, 0},
                                           {0, 0, 0, 0, INT64_MIN}}) {
    CHECK(time(wrong) == "refused");
  }
}

TEST_CASE("offsets") {
  CHECK(offset(0, 0, true) == "Z");
  CHECK(offset(0, 0, false) == "+00:00");
  CHECK(offset(3600, 3600) == "+02:00");
  CHECK(offset(-3600, 0) == "-01:00");
  CHECK(offset(-12'600, 3600) == "-02:30");
  CHECK(offset(3600, -3600) == "+00:00");
  CHECK(offset(3600, 0, true) == "+01:00");
  CHECK(offset(-75, 0) == "-00:01");
  CHECK(offset(86'399, 0) == "+23:59");
  CHECK(offset(86'400, 0) == "refused");
  CHECK(offset(-86'400, 0) == "refused");
  CHECK(offset(86'400, -86'400) == "+00:00");
  CHECK(offset(INT64_MAX, INT64_MIN) == "refused");
  CHECK(offset(0, INT64_MAX) == "refused");
}

TEST_CASE("the longest date and time fits") {
  Iso8601Text text;
  CHECK(text.date({-9999, 12, 31}));
  text.separator();
  CHECK(text.time({23, 59, 59, 999'999, 6}));
  CHECK(text.offset({-86'399, 0, false}));
  CHECK(text.view() == "-9999-12-31T23:59:59.999999-23:59");
}

TEST_CASE("decimals: the point where it belongs") {
  CHECK(decimal(false, "4900", -2) == "49.00");
  CHECK(decimal(true, "4900", -2) == "-49.00");
  CHECK(decimal(false, "1", 0) == "1");
  CHECK(decimal(false, "0", 0) == "0");
  CHECK(decimal(true, "0", 0) == "-0");
  CHECK(decimal(false, "0", -2) == "0.00");
  CHECK(decimal(false, "5", -1) == "0.5");
  CHECK(decimal(false, "5", -6) == "0.000005");
  CHECK(decimal(false, "5", -7) == "5E-7");
  CHECK(decimal(false, "123", -9) == "1.23E-7");
  CHECK(decimal(false, "123", -8) == "0.00000123");
  CHECK(decimal(false, "123", -3) == "0.123");
  CHECK(decimal(false, "123", -1) == "12.3");
  CHECK(decimal(false, "123", 1) == "1.23E+3");
  CHECK(decimal(false, "1", 1) == "1E+1");
  CHECK(decimal(false, "0", 3) == "0E+3");
  CHECK(decimal(false, "0", -7) == "0E-7");
}

TEST_CASE("decimals with wild exponents stay short or are refused") {
  CHECK(decimal(true, "12", 1'000'000'000'000'000) == "-1.2E+1000000000000001");
  CHECK(decimal(false, "12", -1'000'000'000'000'000) == "1.2E-999999999999999");
  CHECK(decimal(false, "1", 1'000'000'000'000'001) == "refused");
  CHECK(decimal(false, "1", INT64_MAX) == "refused");
  CHECK(decimal(false, "1", INT64_MIN) == "refused");
}

TEST_CASE("the offset of a broken sequence is that of its first byte") {
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
