// The reader: what RFC 8259 allows, what it does not, and where the fault is.
#include "webhooks/json_reader.hpp"

#include <simdjson.h>

#include <optional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "core/json_fault.hpp"
#include "json_echo.hpp"
#include "words.hpp"

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

// Each text is refused for this reason at the byte behind the mark, ^.
void check_refused_all(std::string_view reason,
                       const std::vector<std::string>& marked) {
  for (std::string json : marked) {
    const std::size_t offset = json.find('^');
    json.erase(offset, 1);
    check_refused({json, reason, offset});
  }
}
// The texts are words.
void check_refused(std::string_view reason, std::string_view marked) {
  for (const std::string_view json : webhooks_test::words(marked)) {
    check_refused_all(reason, {std::string(json)});
  }
}

std::string repeat(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("a document becomes its events, in order") {
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

TEST_CASE("numbers keep their type and value") {
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

TEST_CASE("numbers out of range are refused, not rounded") {
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

TEST_CASE("a structural fault has the offset of its token") {
  check_refused("empty", R"(^)");
  check_refused_all("empty", {" \n^"});
  check_refused(
      "unexpected_end",
      R"([^ {^ [1^ [1,^ [[1]^ [[]^ {"a"^ {"a":^ {"a":1^ {"a":1,^ {"a":{}^)");
  check_refused_all("unexpected_end", {"{\"a\" ^"});
  check_refused(
      "unexpected_token",
      R"(^] ^, ^: [^,1] [1,^] [1,^,2] [1^:2] [1^} ["a"^:1] {^] {"a":1^] {"a":^}
      {"a":1,^} {^1:2} {"a":1,^b:2} {^,} {"a":^:1} [^'a'] ^\ ^\")");
  check_refused_all(
      "unexpected_token",
      {" ^}", "[1 ^2]", "[\"a\" ^\"b\"]", "[[] ^[]]", "{\"a\" ^1}",
       "{\"a\":1 ^\"b\":2}", "{\"a\":[] ^\"b\":2}",
       "{\"a\\\"\":1,\"b\\\\\" ^2}", "[^\001]", "[1^\f]", "[true^\037]",
       "[1^\032,2]", "[\"a\"^\f]", "{\"a\"^\f:1}", "[^\v1]", "[^\302\240 1]"});
  check_refused("trailing_content",
                R"([1]^/**/ [1]^] 1^,2 1^],[2 {}^{} "a"^x 1^})");
  check_refused_all("trailing_content",
                    {"[1,2] ^\f", "[1] ^2", "1 ^2", "null ^null"});
  check_refused({std::string("[\0]", 3), "unexpected_token", 1});
}

TEST_CASE("a faulty literal or number has the offset of its start") {
  check_refused(
      "invalid_literal",
      R"(^nul ^nulll [^True] [^truefalse] ^NaN [1,^Infinity] [1,^tru,"a])");
  check_refused(
      "invalid_number",
      R"(^- [^-Infinity] [^01] [^-01] [^1.] [^1.e1] [^1e] [^1e+] [^1e5.5]
      [^0x10] [^1_000] [^1"a"] [^1-2])");
  check_refused("unexpected_token", R"([^.5] [^+1])");
}

TEST_CASE("a fault in a string has the offset of its byte") {
  check_refused("unclosed_string", R"(^"abc ["a",^"b] [^"a\"] ^" ^"\)");
  check_refused_all("control_character",
                    {"[\"a^\nb\"]", "[\"a\\^\nb\"]", "{\"^\t\":1}"});
  check_refused(
      "invalid_escape",
      R"(["ab^\x"] {"a^\q":1} ["^\u12G4"] ["^\u12"] ["ok\n^\u-123"] ["^\uD800"]
      ["^\uD800x"] ["^\uD800\n"] ["^\uD800\uD800"] ["^\uDC00"]
      ["^\uDFFF\uD800"] ["\ud83d\ude00^\ude00"])");
  check_refused_all("invalid_utf8",
                    {"[\"^\200\"]", "[\"^\355\240\200\"]", "[\"^\300\257\"]",
                     "{\"^\377\":1}", "\"^\360\237\230", "^\377"});
  check_refused_all("byte_order_mark", {"^\357\273\277[]"});
  check_refused_all("trailing_content", {"[]^\357\273\277"});
}

TEST_CASE("depth counts arrays and objects, up to the limit") {
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

TEST_CASE("with any one byte changed, reader and simdjson's DOM agree") {
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
