// The reader: what RFC 8259 allows, what it does not, and where the fault is.
#include "webhooks/json_reader.hpp"

#include <simdjson.h>

#include <optional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "core/json_fault.hpp"
#include "json_echo.hpp"

using webhooks::JsonFault;
using webhooks::read_json;
using webhooks_test::Echo;

namespace {

std::optional<JsonFault> check_json(std::string_view json) {
  webhooks::JsonEvents ignored;
  return read_json(json, ignored);
}

std::string echo(std::string_view json) {
  Echo echo;
  const std::optional<JsonFault> fault = read_json(json, echo);
  INFO(json);
  REQUIRE_FALSE(fault.has_value());
  return std::string(echo.writer.text());
}

struct Refused {
  std::string json;
  std::string_view reason;
  std::size_t offset;
};

void check_refused(const Refused& wanted) {
  INFO(wanted.json);
  // On every CPU the same: the kernels split invalid text in different ways.
  auto& active = simdjson::get_active_implementation();
  const auto* const own = &*active;
  for (const auto* kernel : simdjson::get_available_implementations()) {
    if (!kernel->supported_by_runtime_system()) continue;
    INFO(kernel->name());
    active = kernel;
    const std::optional<JsonFault> fault = check_json(wanted.json);
    active = own;
    REQUIRE(fault.has_value());
    CHECK(fault->reason == wanted.reason);
    CHECK(fault->offset == wanted.offset);
  }
}

std::string repeat(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("documents are told as they are") {
  for (const std::string_view json :
       {R"(null)", R"(true)", R"(false)", R"(0)", R"(-1)", R"("")", R"([])",
        R"({})", R"([[],{},[{}]])", R"({"":{"a":[1,2.5,"x",null,true,false]}})",
        R"({"a":1,"a":2})", R"([9223372036854775807,-9223372036854775808])"}) {
    CHECK(echo(json) == json);
  }
  CHECK(echo(" \t\n\r[ 1 , { \"a\" : 2 } ] \r\n") == R"([1,{"a":2}])");
  CHECK(echo(R"("\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00")") ==
        "\"\\\"\\\\/\\b\\f\\n\\r\\t\u00e9\u20ac\U0001F600\"");
  CHECK(echo(R"({"\u0061\u0000":"\u0000"})") == R"({"a\u0000":"\u0000"})");
  CHECK(echo("\"\x7f\uffff\U0010FFFF\"") == "\"\x7f\uffff\U0010FFFF\"");
}

TEST_CASE("numbers keep their kind and their value") {
  CHECK(echo("-0") == "0");
  CHECK(echo("-0.0") == "-0.0");
  CHECK(echo("1.0") == "1.0");
  CHECK(echo("1E2") == "100.0");
  CHECK(echo("1e-2") == "0.01");
  CHECK(echo("[123456789.123456789e-3]") == "[123456.7891234568]");
  // Halfway cases, and more digits than a double holds.
  CHECK(echo("9007199254740993.0") == "9007199254740992.0");
  CHECK(echo("0.1000000000000000055511151231257827") == "0.1");
  CHECK(echo("2.2250738585072011e-308") == "2.225073858507201e-308");
  CHECK(echo("0.95000000000000000000") == "0.95");
  CHECK(echo("0e99999999999999999999") == "0.0");
  CHECK(echo("5e-324") == "5e-324");
  // A long one at the root as well as inside.
  const std::string digits = "0." + repeat("1234567890", 200);
  CHECK(echo(digits) == "0.12345678901234568");
  CHECK(echo("[" + digits + "]") == "[0.12345678901234568]");
}

TEST_CASE("numbers out of range are refused, not changed") {
  for (const Refused& wanted : std::vector<Refused>{
           {"1e400", "number_out_of_range", 0},
           {"[0,-1e400]", "number_out_of_range", 3},
           {"1e-400", "number_out_of_range", 0},
           {"1e99999999999999999999", "number_out_of_range", 0},
           {"1e-99999999999999999999", "number_out_of_range", 0},
           {"1.7976931348623159e308", "number_out_of_range", 0},
           {"9223372036854775808", "number_out_of_range", 0},
           {"[1,-9223372036854775809]", "number_out_of_range", 3},
           {"[" + repeat("7", 100'000) + "]", "number_out_of_range", 1}}) {
    check_refused(wanted);
  }
  CHECK(echo("1.7976931348623157e308") == "1.7976931348623157e+308");
  // The exponent alone does not say how large a number is.
  const std::string zeros = repeat("0", 400);
  CHECK(echo("-0." + zeros + "1e401") == "-1.0");
  CHECK(echo("1" + zeros + ".0e-400") == "1.0");
}

TEST_CASE("broken structure is found where it breaks") {
  for (const Refused& wanted : std::vector<Refused>{
           {"", "empty", 0},
           {" \n", "empty", 2},
           {"[", "unexpected_end", 1},
           {"{", "unexpected_end", 1},
           {"[1", "unexpected_end", 2},
           {"[1,", "unexpected_end", 3},
           {"[[1]", "unexpected_end", 4},
           {"[[]", "unexpected_end", 3},
           {"{\"a\"", "unexpected_end", 4},
           {"{\"a\" ", "unexpected_end", 5},
           {"{\"a\":", "unexpected_end", 5},
           {"{\"a\":1", "unexpected_end", 6},
           {"{\"a\":1,", "unexpected_end", 7},
           {"{\"a\":{}", "unexpected_end", 7},
           {"]", "unexpected_token", 0},
           {" }", "unexpected_token", 1},
           {",", "unexpected_token", 0},
           {":", "unexpected_token", 0},
           {"[,1]", "unexpected_token", 1},
           {"[1,]", "unexpected_token", 3},
           {"[1,,2]", "unexpected_token", 3},
           {"[1 2]", "unexpected_token", 3},
           {"[1:2]", "unexpected_token", 2},
           {"[1}", "unexpected_token", 2},
           {"[\"a\":1]", "unexpected_token", 4},
           {"[\"a\" \"b\"]", "unexpected_token", 5},
           {"[[] []]", "unexpected_token", 4},
           {"{]", "unexpected_token", 1},
           {"{\"a\":1]", "unexpected_token", 6},
           {"{\"a\" 1}", "unexpected_token", 5},
           {"{\"a\":}", "unexpected_token", 5},
           {"{\"a\":1,}", "unexpected_token", 7},
           {"{\"a\":1 \"b\":2}", "unexpected_token", 7},
           {"{\"a\":[] \"b\":2}", "unexpected_token", 8},
           {"{\"a\\\"\":1,\"b\\\\\" 2}", "unexpected_token", 15},
           {"{1:2}", "unexpected_token", 1},
           {"{\"a\":1,b:2}", "unexpected_token", 7},
           {"{,}", "unexpected_token", 1},
           {"{\"a\"::1}", "unexpected_token", 5},
           {"['a']", "unexpected_token", 1},
           {"[\x01]", "unexpected_token", 1},
           {"[1\f]", "unexpected_token", 2},
           {"[true\x1f]", "unexpected_token", 5},
           {"[1\x1a,2]", "unexpected_token", 2},
           {"[\"a\"\f]", "unexpected_token", 4},
           {"{\"a\"\f:1}", "unexpected_token", 4},
           {"[1,2] \f", "trailing_content", 6},
           {"[\v1]", "unexpected_token", 1},
           {"[\u00a0 1]", "unexpected_token", 1},
           {"\\", "unexpected_token", 0},
           {"\\\"", "unexpected_token", 0},
           {"[1]/**/", "trailing_content", 3},
           {"[1]]", "trailing_content", 3},
           {"[1] 2", "trailing_content", 4},
           {"1 2", "trailing_content", 2},
           {"1,2", "trailing_content", 1},
           {"1],[2", "trailing_content", 1},
           {"null null", "trailing_content", 5},
           {"{}{}", "trailing_content", 2},
           {"\"a\"x", "trailing_content", 3},
           {"1}", "trailing_content", 1}}) {
    check_refused(wanted);
  }
  check_refused({std::string("[\0]", 3), "unexpected_token", 1});
}

TEST_CASE("broken scalars are found where they begin") {
  for (const Refused& wanted :
       std::vector<Refused>{{"nul", "invalid_literal", 0},
                            {"nulll", "invalid_literal", 0},
                            {"[True]", "invalid_literal", 1},
                            {"[truefalse]", "invalid_literal", 1},
                            {"NaN", "invalid_literal", 0},
                            {"[1,Infinity]", "invalid_literal", 3},
                            {"-", "invalid_number", 0},
                            {"[-Infinity]", "invalid_number", 1},
                            {"[01]", "invalid_number", 1},
                            {"[-01]", "invalid_number", 1},
                            {"[1.]", "invalid_number", 1},
                            {"[1.e1]", "invalid_number", 1},
                            {"[1e]", "invalid_number", 1},
                            {"[1e+]", "invalid_number", 1},
                            {"[1e5.5]", "invalid_number", 1},
                            {"[0x10]", "invalid_number", 1},
                            {"[1_000]", "invalid_number", 1},
                            {"[1\"a\"]", "invalid_number", 1},
                            {"[1,tru,\"a]", "invalid_literal", 3},
                            {"[1-2]", "invalid_number", 1},
                            {"[.5]", "unexpected_token", 1},
                            {"[+1]", "unexpected_token", 1}}) {
    check_refused(wanted);
  }
}

TEST_CASE("broken strings are found at the byte") {
  for (const Refused& wanted : std::vector<Refused>{
           {"\"abc", "unclosed_string", 0},
           {"[\"a\",\"b]", "unclosed_string", 5},
           {"[\"a\\\"]", "unclosed_string", 1},
           {"\"", "unclosed_string", 0},
           {"\"\\", "unclosed_string", 0},
           {"[\"a\nb\"]", "control_character", 3},
           {"[\"a\\\nb\"]", "control_character", 4},
           {"{\"\t\":1}", "control_character", 2},
           {"[\"ab\\x\"]", "invalid_escape", 4},
           {"{\"a\\q\":1}", "invalid_escape", 3},
           {"[\"\\u12G4\"]", "invalid_escape", 2},
           {"[\"\\u12\"]", "invalid_escape", 2},
           {"[\"ok\\n\\u-123\"]", "invalid_escape", 6},
           {"[\"\\uD800\"]", "invalid_escape", 2},
           {"[\"\\uD800x\"]", "invalid_escape", 2},
           {"[\"\\uD800\\n\"]", "invalid_escape", 2},
           {"[\"\\uD800\\uD800\"]", "invalid_escape", 2},
           {"[\"\\uDC00\"]", "invalid_escape", 2},
           {"[\"\\uDFFF\\uD800\"]", "invalid_escape", 2},
           {"[\"\\ud83d\\ude00\\ude00\"]", "invalid_escape", 14},
           {"[\"\x80\"]", "invalid_utf8", 2},
           {"[\"\xED\xA0\x80\"]", "invalid_utf8", 2},
           {"[\"\xC0\xAF\"]", "invalid_utf8", 2},
           {"{\"\xFF\":1}", "invalid_utf8", 2},
           {"\"\xF0\x9F\x98", "invalid_utf8", 1},
           {"\xFF", "invalid_utf8", 0},
           {"\xEF\xBB\xBF[]", "byte_order_mark", 0},
           {"[]\xEF\xBB\xBF", "trailing_content", 2}}) {
    check_refused(wanted);
  }
}

TEST_CASE("depth counts arrays and objects, and ends at the limit") {
  CHECK_FALSE(check_json(repeat("[", 128) + repeat("]", 128)).has_value());
  check_refused({repeat("[", 129) + repeat("]", 129), "too_deep", 128});
  check_refused({repeat("[", 100'000), "too_deep", 128});
  check_refused(
      {repeat("{\"a\":", 129) + "1" + repeat("}", 129), "too_deep", 128 * 5});
  // One after the other is not nested.
  CHECK_FALSE(check_json("[" + repeat("[],", 500) + "[]]").has_value());
}

TEST_CASE("a document beyond the size limit is not read") {
  const std::size_t limit = webhooks::kJsonBytesMax;
  CHECK_FALSE(check_json("[" + std::string(limit - 2, ' ') + "]").has_value());
  check_refused({"[" + std::string(limit - 1, ' ') + "]", "too_large", limit});
}

TEST_CASE("one changed byte anywhere: the verdict is that of simdjson's DOM") {
  // Another parser of the same library, with its own grammar check.
  const std::string json =
      R"({"a":[1,-2.5e3,"x\n\u00e9\ud83d\ude00",{}],"b":{"c":null},"":[true,[]],"d":false} )";
  simdjson::dom::parser parser;
  std::size_t accepted = 0;
  for (std::size_t at = 0; at < json.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = json;
      changed[at] = static_cast<char>(byte);
      const bool wanted = parser.parse(changed).error() == simdjson::SUCCESS;
      const std::optional<JsonFault> fault = check_json(changed);
      INFO(changed);
      REQUIRE(fault.has_value() == !wanted);
      REQUIRE(webhooks::find_json_fault(changed).has_value() == !wanted);
      if (fault) REQUIRE(fault->offset <= changed.size());
      accepted += wanted ? 1 : 0;
    }
  }
  CHECK(accepted > json.size());  // changed, and still JSON: letters, digits
  // And every beginning of it.
  for (std::size_t size = 0; size + 1 < json.size(); ++size) {
    INFO(size);
    CHECK(check_json(std::string_view(json).substr(0, size)).has_value());
  }
}
