// The writer alone: what it writes and what it refuses.
#include "webhooks/json_writer.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "catch.hpp"
#include "webhooks/json_reader.hpp"

using webhooks::JsonWriter;

namespace {

bool is_json(std::string_view text) {
  webhooks::JsonEvents ignored;
  return !webhooks::read_json(text, ignored).has_value();
}

std::string in_quotes(std::string_view utf8) {
  JsonWriter writer;
  REQUIRE(writer.string(utf8));
  return std::string(writer.text());
}

std::string number(double value) {
  JsonWriter writer;
  REQUIRE(writer.number(value));
  return std::string(writer.text());
}

std::string_view string_error(std::string_view bytes) {
  JsonWriter writer;
  CHECK_FALSE(writer.string(bytes));
  return writer.error();
}

}  // namespace

TEST_CASE("arrays and objects get commas and brackets") {
  JsonWriter writer;
  writer.begin_object();
  writer.key("a");
  writer.begin_array();
  writer.end();
  writer.key("b");
  writer.begin_array();
  writer.integer(1);
  writer.null();
  writer.begin_object();
  writer.key("c");
  writer.boolean(true);
  writer.end();
  writer.boolean(false);
  writer.end();
  writer.end();
  CHECK(writer.text() == R"({"a":[],"b":[1,null,{"c":true},false]})");
}

TEST_CASE("every ASCII byte is escaped as RFC 8259 requires") {
  for (int i = 0; i < 0x80; ++i) {
    const char byte = static_cast<char>(i);
    INFO(i);
    const std::string text = in_quotes(std::string_view(&byte, 1));
    const std::string_view inside =
        std::string_view(text).substr(1, text.size() - 2);
    if (i >= 0x20 && byte != '"' && byte != '\\') {
      CHECK(inside == std::string_view(&byte, 1));
    } else {
      CHECK(inside.front() == '\\');
    }
    CHECK(is_json(text));
  }
  CHECK(in_quotes("\"\\\b\f\n\r\t") == R"("\"\\\b\f\n\r\t")");
  CHECK(in_quotes(std::string_view("\0\x01\x1f\x7f", 4)) ==
        "\"\\u0000\\u0001\\u001f\x7f\"");
  // Valid JSON as they are, whatever JavaScript once thought of them.
  CHECK(in_quotes("\u2028\u2029</script>/") == "\"\u2028\u2029</script>/\"");
}

TEST_CASE("a special byte is found at every position and length") {
  // Lengths around the scan's block and around the vectorized UTF-8 check.
  for (std::size_t size = 1; size <= 70; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      INFO(size << " " << at);
      std::string text(size, 'x');
      text[at] = '\n';
      std::string wanted(text);
      wanted.replace(at, 1, "\\n");
      CHECK(in_quotes(text) == "\"" + wanted + "\"");
      text[at] = '\x80';
      CHECK(string_error(text) == "invalid_utf8");
      text[at] = '\xFF';
      CHECK(string_error(text) == "invalid_utf8");
    }
  }
}

TEST_CASE("UTF-8 goes through unchanged, anything else is refused") {
  for (const std::string_view good :
       {"\u00e9", "\u20ac", "\U0001F600", "\U0010FFFF", "\u0080", "\u07ff",
        "\u0800", "\uffff", "\U00010000", "\ud7ff", "\ue000"}) {
    CHECK(in_quotes(good) == "\"" + std::string(good) + "\"");
  }
  for (const std::string_view bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41",
        "\xE0\x80\x80", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80",
        "\xED\xBF\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF"}) {
    // Alone, in a short string and in one long enough for simdjson.
    const std::string short_text = "ab" + std::string(bad) + "c";
    const std::string long_text = std::string(40, 'y') + short_text;
    INFO(long_text);
    CHECK(string_error(bad) == "invalid_utf8");
    CHECK(string_error(short_text) == "invalid_utf8");
    CHECK(string_error(long_text) == "invalid_utf8");
  }
}

TEST_CASE("the smallest and largest integers are written") {
  const auto text = [](auto write) {
    JsonWriter writer;
    REQUIRE(write(writer));
    return std::string(writer.text());
  };
  CHECK(text([](auto& w) { return w.integer(0); }) == "0");
  CHECK(text([](auto& w) { return w.integer(INT64_MIN); }) ==
        "-9223372036854775808");
  CHECK(text([](auto& w) { return w.integer(INT64_MAX); }) ==
        "9223372036854775807");
}

TEST_CASE("floats are short, keep their point and round-trip") {
  CHECK(number(0.0) == "0.0");
  CHECK(number(-0.0) == "-0.0");
  CHECK(number(1.0) == "1.0");
  CHECK(number(-2.5) == "-2.5");
  CHECK(number(0.1) == "0.1");
  CHECK(number(110.5) == "110.5");
  CHECK(number(250000.0) == "250000.0");
  CHECK(number(1e-5) == "0.00001");
  CHECK(number(9.9e-6) == "9.9e-06");
  CHECK(number(9007199254740993.0) == "9007199254740992.0");
  CHECK(number(1e16) == "1e+16");
  CHECK(number(5e-324) == "5e-324");
  CHECK(number(1.7976931348623157e308) == "1.7976931348623157e+308");

  std::mt19937_64 random(20240229);
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t bits = random();
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    // Half of them in the range where the point is written out.
    if (i % 2 == 0) value = std::fmod(value, 1e16);
    const std::string text = number(value);
    INFO(text);
    double back = 0;
    const auto parsed =
        std::from_chars(text.data(), text.data() + text.size(), back);
    REQUIRE(parsed.ptr == text.data() + text.size());
    REQUIRE(std::memcmp(&back, &value, sizeof value) == 0);
    REQUIRE(text.find_first_of(".e") != std::string::npos);
    REQUIRE(is_json(text));
  }
}

TEST_CASE("NaN and infinities are refused") {
  for (const double value : {std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
    JsonWriter writer;
    CHECK_FALSE(writer.number(value));
    CHECK(writer.error() == "not_finite");
    CHECK(writer.text().empty());
  }
}

TEST_CASE("the size limit is exact") {
  // An exact fit, in a plain and in an escaped string.
  for (const std::string_view text : {"0123456789", "01234\n56789"}) {
    const std::size_t bytes = in_quotes(text).size();
    for (std::size_t limit = 0; limit <= bytes + 2; ++limit) {
      JsonWriter writer(limit);
      INFO(limit);
      CHECK(writer.string(text) == (limit >= bytes));
      CHECK(writer.text().size() <= limit);
      if (limit < bytes) CHECK(writer.error() == "too_large");
    }
  }
}

TEST_CASE("the buffer grows without losing a byte") {
  JsonWriter writer;
  std::string wanted = "[";
  writer.begin_array();
  for (int i = 0; i < 5000; ++i) {
    const std::string part(static_cast<std::size_t>(i % 97), 'a');
    REQUIRE(writer.string(part));
    wanted += (i == 0 ? "\"" : ",\"") + part + "\"";
  }
  writer.end();
  CHECK(writer.text() == wanted + "]");
}

TEST_CASE("a string that cannot fit is refused before it is read") {
  // Were it read, the address sanitizer would see it: the view lies about the
  // bytes behind it.
  const std::array<char, 1> byte = {'x'};
  JsonWriter writer(100);
  CHECK_FALSE(writer.string({byte.data(), std::size_t{1} << 40}));
  CHECK(writer.error() == "too_large");
}

TEST_CASE("depth ends at the limit") {
  JsonWriter writer;
  for (std::size_t i = 0; i < webhooks::kJsonDepthMax; ++i) {
    REQUIRE(writer.begin_array());
  }
  SECTION("up to it") {
    for (std::size_t i = 0; i < webhooks::kJsonDepthMax; ++i) {
      REQUIRE(writer.end());
    }
    CHECK(is_json(writer.text()));
  }
  SECTION("beyond it") {
    CHECK_FALSE(writer.begin_object());
    CHECK(writer.error() == "too_deep");
  }
}
