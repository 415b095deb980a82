#include "webhooks/headers.hpp"

#include <string>
#include <vector>

#include "catch.hpp"
#include "words.hpp"

using webhooks::check_header;
using webhooks::check_headers;
using webhooks::HeaderView;
using webhooks::kHeaderNameBytesMax;
using webhooks::kHeadersMax;
using webhooks::kHeaderTotalBytesMax;
using webhooks::kHeaderValueBytesMax;
using webhooks_test::words;
using std::string_literals::operator""s;

namespace {

using Header = std::pair<std::string, std::string>;

std::string verdict(std::string_view name, std::string_view value = "x") {
  const auto status = check_header(name, value);
  return status.ok() ? "ok" : std::string(status.error().reason);
}

// "ok", or the reason and the index.
std::string verdict_of(const std::vector<Header>& headers) {
  const std::vector<HeaderView> views(headers.begin(), headers.end());
  const auto problem = check_headers(views);
  if (!problem) return "ok";
  return std::string(problem->reason) + " " + std::to_string(problem->index);
}

}  // namespace

TEST_CASE("headers: usual headers are accepted") {
  for (const std::string_view name :
       words("Authorization X-Api-Key x X-Site Accept Idempotency-Key "
             "X-Request-Id api_key X-Functions-Key X-Webhook-Source Hostname "
             "X-Host Contents Securely Date-Of-Birth X-Forward Proxy "
             "!#$%&'*+-.^_`|~0aZ")) {
    INFO(name);
    CHECK(verdict(name) == "ok");
  }
  for (const std::string value : {"Bearer abc.def-123_~+/==", "a b  c", "x",
                                  "{\"a\":1}", "~!@#$%^&*()", "a:b;c,d"}) {
    INFO(value);
    CHECK(verdict("X-Value", value) == "ok");
  }
}

TEST_CASE("headers: names are tokens") {
  CHECK(verdict("") == "invalid_header_name");
  CHECK(verdict(std::string(kHeaderNameBytesMax, 'a')) == "ok");
  CHECK(verdict(std::string(kHeaderNameBytesMax + 1, 'a')) ==
        "invalid_header_name");
  const std::string marks = "!#$%&'*+-.^_`|~";
  int allowed = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool token = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                       (c >= 'A' && c <= 'Z') ||
                       (c != '\0' && marks.find(c) != std::string::npos);
    INFO(byte);
    CHECK(verdict("q" + std::string(1, c)) ==
          (token ? "ok" : "invalid_header_name"));
    allowed += token ? 1 : 0;
  }
  CHECK(allowed == 77);
  for (const std::string& bad :
       {"X Name"s, "X-Name "s, " X-Name"s, "X-Name:"s, ":authority"s,
        "X-Name\r\nX-Evil"s, "X-Name\0"s, "X-N\xc3\xa4me"s, "X(Name)"s,
        "X/Name"s, "X\tName"s}) {
    INFO(bad);
    CHECK(verdict(bad) == "invalid_header_name");
  }
}

TEST_CASE("headers: reserved names, in any case and with underscores") {
  for (
      const std::string_view name : words(
          "host Host HOST content-length Content-Length transfer-encoding "
          "connection te trailer upgrade expect keep-alive proxy-authorization "
          "proxy-connection content-type content-encoding content-md5 "
          "content-range "
          "user-agent accept-encoding webhook-id webhook-timestamp "
          "Webhook-Signature webhook-anything svix-id x-svix-x cookie "
          "set-cookie "
          "x-forwarded-for X-Forwarded-Host forwarded via date x-real-ip "
          "true-client-ip cf-connecting-ip x-amz-date x-amzn-trace-id x-goog-x "
          "x-google-metadata-request x-azure-ref x-aws-ec2-metadata-token "
          "x-envoy-original-path x-original-url x-rewrite-url "
          "x-http-method-override metadata metadata-flavor http2-settings "
          "sec-websocket-key content_length CONTENT_TYPE transfer_encoding "
          "webhook_signature x_forwarded_for User_Agent proxy_authorization")) {
    INFO(name);
    CHECK(verdict(name) == "reserved_header");
  }
}

TEST_CASE("headers: values are visible ASCII with spaces inside") {
  CHECK(verdict("X-V", "") == "invalid_header_value");
  CHECK(verdict("X-V", std::string(kHeaderValueBytesMax, 'a')) == "ok");
  CHECK(verdict("X-V", std::string(kHeaderValueBytesMax + 1, 'a')) ==
        "invalid_header_value");
  for (int byte = 0; byte < 256; ++byte) {
    const std::string c(1, static_cast<char>(byte));
    INFO(byte);
    CHECK(verdict("X-V", "a" + c + "b") ==
          (byte >= 0x20 && byte < 0x7f ? "ok" : "invalid_header_value"));
    CHECK(verdict("X-V", c) ==
          (byte > 0x20 && byte < 0x7f ? "ok" : "invalid_header_value"));
  }
  for (const std::string& bad :
       {"a\r\nX-Evil: 1"s, "a\nb"s, "a\r"s, "\0"s, "a\0b"s, " a"s, "a "s,
        "\ta"s, "a\tb"s, "caf\xc3\xa9"s}) {
    INFO(bad);
    CHECK(verdict("X-V", bad) == "invalid_header_value");
  }
}

TEST_CASE("headers: number, duplicates and total size") {
  CHECK(verdict_of({}) == "ok");
  CHECK(verdict_of({{"A", "1"}, {"B", "2"}}) == "ok");
  CHECK(verdict_of({{"A", "1"}, {"a", "2"}}) == "duplicate_header 1");
  CHECK(verdict_of({{"X-A", "1"}, {"B", "2"}, {"x_a", "2"}}) ==
        "duplicate_header 2");
  CHECK(verdict_of({{"A", "1"}, {"B", ""}, {"B", ""}}) ==
        "invalid_header_value 1");
  CHECK(verdict_of({{"Host", "1"}, {"B", ""}}) == "reserved_header 0");
  CHECK(verdict_of({{"A", "1"}, {"b b", ""}}) == "invalid_header_name 1");

  std::vector<Header> many;
  for (std::size_t i = 0; i < kHeadersMax; ++i) {
    many.emplace_back("X-" + std::to_string(i), "v");
  }
  CHECK(verdict_of(many) == "ok");
  many.emplace_back("X-Last", "v");
  CHECK(verdict_of(many) == "too_many_headers 20");
  many.front().second = "";
  CHECK(verdict_of(many) == "invalid_header_value 0");
}

TEST_CASE("headers: their total is limited") {
  std::vector<Header> headers = {
      {"A", std::string(kHeaderValueBytesMax, 'a')},
      {"B", std::string(kHeaderValueBytesMax, 'b')},
  };
  const std::size_t left =
      kHeaderTotalBytesMax - 2 * (kHeaderValueBytesMax + 1);
  headers.emplace_back("C", std::string(left - 1, 'c'));
  CHECK(verdict_of(headers) == "ok");
  headers.back().second.push_back('c');
  CHECK(verdict_of(headers) == "headers_too_large 2");
}
