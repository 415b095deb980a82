// Purpose: the request of an attempt, byte for byte as the receiver gets it.
// Thread: one; the server has its own.
#include <openssl/evp.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "catch.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;

namespace {

std::string lower(std::string text) {
  for (char& c : text) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return text;
}

void add_key(Endpoint& endpoint, const char* secret,
             std::optional<std::int64_t> expires_at_ms = std::nullopt) {
  auto key = SigningKey::parse(secret);
  REQUIRE(key.ok());
  endpoint.keys.push_back({std::move(key).value(), expires_at_ms});
}

}  // namespace

TEST_CASE("request: has exactly the documented headers") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/in?token=t%20x"));
  const std::int64_t before = unix_ms() / 1000;
  const Attempt attempt =
      run.outcome(delivery("msg_1", "wh_1", R"({"type":"a"})"));
  const std::int64_t after = unix_ms() / 1000;
  CHECK(attempt.state == DeliveryState::kDelivered);

  REQUIRE(server.count() == 1);
  const Request request = server.requests().front();
  CHECK(request.method == "POST");
  CHECK(request.target == "/in?token=t%20x");
  CHECK(request.version == "HTTP/1.1");
  CHECK(request.body == R"({"type":"a"})");
  std::set<std::string> names;
  for (const auto& header : request.headers) {
    INFO(header.first);
    CHECK(names.insert(lower(header.first)).second);  // none twice
  }
  CHECK(names == std::set<std::string>{"host", "user-agent", "accept",
                                       "content-type", "content-length",
                                       "webhook-id", "webhook-timestamp",
                                       "webhook-signature"});
  CHECK(request.header("host") == "127.0.0.1:" + std::to_string(server.port()));
  CHECK(request.header("content-type") == "application/json");
  CHECK(request.header("content-length") == "12");
  CHECK(request.header("user-agent") == "Plausible-Webhooks/" WEBHOOKS_VERSION);
  CHECK(request.header("webhook-id") == "msg_1");
  const std::string timestamp = request.header("webhook-timestamp");
  CHECK(std::stoll(timestamp) >= before);
  CHECK(std::stoll(timestamp) <= after);
  CHECK(request.header("webhook-signature") ==
        hmac_signature(kSecretA, "msg_1", timestamp, request.body));
}

TEST_CASE("request: the body arrives byte for byte as signed") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  std::string odd = "{\"a\":\"\xE2\x80\xA8\xF0\x9F\x98\x80\"}";
  odd.push_back('\0');
  odd += "after";
  for (const std::string& body : {std::string("{}"), odd, std::string(1, 'x'),
                                  std::string(256 * 1024, 'y')}) {
    const std::string id = "msg_" + std::to_string(body.size());
    CHECK(run.outcome(delivery(id, "wh_1", body)).state ==
          DeliveryState::kDelivered);
    const Request request = server.requests().back();
    CHECK((request.body == body));
    CHECK(request.header("content-length") == std::to_string(body.size()));
    CHECK(request.header_count("expect") == 0);
    CHECK(request.header_count("transfer-encoding") == 0);
    CHECK(request.header("webhook-signature") ==
          hmac_signature(kSecretA, id, request.header("webhook-timestamp"),
                         body));
  }
}

TEST_CASE("request: a body over the limit is not sent") {
  TestServer server;
  EngineOptions options = test_options();
  options.body_bytes_max = 100;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  CHECK(
      run.outcome(delivery("msg_fits", "wh_1", std::string(100, 'x'))).state ==
      DeliveryState::kDelivered);
  const Attempt attempt =
      run.outcome(delivery("msg_large", "wh_1", std::string(101, 'x')));
  CHECK(attempt.state == DeliveryState::kFailed);
  CHECK(attempt.number == 0);
  CHECK_FALSE(attempt.detail.empty());
  Delivery none = delivery("msg_none", "wh_1");
  none.body = nullptr;
  CHECK(run.outcome(std::move(none)).state == DeliveryState::kFailed);
  CHECK(server.count() == 1);
  CHECK(run.engine().stats().waiting == 0);
}

TEST_CASE("request: a retry keeps its id and gets a new signature") {
  TestServer server;
  server.on("/", std::vector<Reply>{answer(500), answer(200)});
  EngineOptions options = test_options();
  options.retry_delays_ms = {1'100};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1", "body"));
  REQUIRE(run.until_attempts(2));
  const auto requests = server.requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[0].header("webhook-id") == "msg_1");
  CHECK(requests[1].header("webhook-id") == "msg_1");
  CHECK(requests[0].header("webhook-timestamp") !=
        requests[1].header("webhook-timestamp"));
  for (const Request& request : requests) {
    CHECK(request.header("webhook-signature") ==
          hmac_signature(kSecretA, "msg_1", request.header("webhook-timestamp"),
                         "body"));
  }
}

TEST_CASE("request: every valid key signs, an expired key does not") {
  TestServer server;
  server.on("/", std::vector<Reply>{answer(500), answer(200)});
  EngineOptions options = test_options();
  options.retry_delays_ms = {600};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"), [](Endpoint& endpoint) {
    add_key(endpoint, kSecretB, unix_ms() + 400);
  });
  run.submit(delivery("msg_1", "wh_1", "body"));
  REQUIRE(run.until_attempts(2));
  const auto requests = server.requests();
  REQUIRE(requests.size() == 2);
  const auto expected = [&](const Request& request, const char* secret) {
    return hmac_signature(secret, "msg_1", request.header("webhook-timestamp"),
                          "body");
  };
  CHECK(requests[0].header("webhook-signature") ==
        expected(requests[0], kSecretA) + " " +
            expected(requests[0], kSecretB));
  CHECK(requests[1].header("webhook-signature") ==
        expected(requests[1], kSecretA));
}

TEST_CASE("request: without a valid key nothing is sent") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_none", server.url("/"),
               [](Endpoint& endpoint) { endpoint.keys.clear(); });
  run.endpoint("wh_old", server.url("/"), [](Endpoint& endpoint) {
    endpoint.keys.clear();
    add_key(endpoint, kSecretB, unix_ms() - 1);
  });
  for (const std::string webhook : {"wh_none", "wh_old"}) {
    Delivery one = delivery("msg_" + webhook, webhook);
    one.retry = false;
    const Attempt attempt = run.outcome(std::move(one));
    CHECK(attempt.state == DeliveryState::kFailed);
    CHECK(attempt.error == ErrorClass::kInternal);
  }
  CHECK(server.count() == 0);
}

TEST_CASE("request: an internal error does not count against the receiver") {
  TestServer server;
  EngineOptions options = test_options();
  options.circuit_failures = 2;
  options.retry_delays_ms = {};
  EngineRun run(options);
  // Without a valid key nothing can be signed.
  const auto put = [&](bool signs) {
    run.endpoint("wh_1", server.url("/"), [&](Endpoint& endpoint) {
      endpoint.keys[0].expires_at_ms =
          signs ? std::nullopt : std::optional<std::int64_t>(1);
    });
  };
  put(false);
  for (int i = 0; i < 5; ++i) {
    CHECK(run.outcome(delivery("msg_" + std::to_string(i), "wh_1")).error ==
          ErrorClass::kInternal);
  }
  put(true);
  server.otherwise([](const Request&) { return Reply().wait(50).answer(200); });
  for (int i = 0; i < 20; ++i) {
    run.submit(delivery("msg_after_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until([&] { return server.count() >= 1; }));
  CHECK(run.engine().stats().in_flight > 1);  // no probe
}

TEST_CASE("request: an id cannot inject a header") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  for (const std::string& id :
       {std::string("msg\r\nX-Evil: 1"), std::string("msg\nX"),
        std::string("msg.1"), std::string("msg 1"), std::string("m\0sg", 4),
        std::string(300, 'm'), std::string()}) {
    Delivery one = delivery(id, "wh_1");
    one.retry = false;
    const Attempt attempt = run.outcome(std::move(one));
    CHECK(attempt.state == DeliveryState::kFailed);
    CHECK(attempt.error == ErrorClass::kInternal);
  }
  CHECK(server.count() == 0);
}

TEST_CASE("request: has the endpoint's headers and the user agent") {
  TestServer server;
  EngineOptions options = test_options();
  options.user_agent = "Other/1.0 (test)";
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"), [](Endpoint& endpoint) {
    endpoint.headers = {{"X-Api-Key", "secret: value"},
                        {"X-Empty", ""},
                        {"x-long", std::string(4096, 'v')}};
  });
  run.outcome(delivery("msg_1", "wh_1"));
  const Request request = server.requests().front();
  CHECK(request.header("user-agent") == "Other/1.0 (test)");
  CHECK(request.header("x-api-key") == "secret: value");
  CHECK(request.header_count("x-empty") == 1);
  CHECK(request.header("x-empty").empty());
  CHECK(request.header("x-long").size() == 4096);
}

TEST_CASE("request: a large body does not wait for 100 Continue") {
  // With `Expect` curl would hold back a body of this size for a second.
  TestServer server;
  EngineOptions options = test_options();
  options.body_bytes_max = 4 * 1024 * 1024;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  const Attempt attempt =
      run.outcome(delivery("msg_1", "wh_1", std::string(2'000'000, 'b')));
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.total_us.value_or(9'999'999) <
        900'000U * static_cast<unsigned>(kSlowdown));
  CHECK(server.requests().front().body.size() == 2'000'000);
}

TEST_CASE("request: state that an answer sets is not sent back") {
  TestServer server;
  server.on("/", answer(200, {{"Set-Cookie", "a=b; Path=/"},
                              {"Strict-Transport-Security", "max-age=9999"},
                              {"Alt-Svc", "h2=\"127.0.0.1:1\""},
                              {"WWW-Authenticate", "Basic realm=x"}}));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 3; ++i) {
    CHECK(run.outcome(delivery("msg_" + std::to_string(i), "wh_1")).state ==
          DeliveryState::kDelivered);
  }
  for (const Request& request : server.requests()) {
    CHECK(request.header_count("cookie") == 0);
    CHECK(request.header_count("authorization") == 0);
    CHECK(request.headers.size() == 8);
  }
}

TEST_CASE("request: a 401 gets no credentials") {
  TestServer server;
  server.on("/", answer(401, {{"WWW-Authenticate", "Basic realm=x"}}));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery one = delivery("msg_1", "wh_1");
  one.retry = false;
  const Attempt attempt = run.outcome(std::move(one));
  CHECK(attempt.status == 401);
  CHECK(attempt.error == ErrorClass::kHttpStatus);
  CHECK(server.count() == 1);
}

TEST_CASE("request: the environment's proxies are ignored") {
  Canary proxy;
  const std::string url = "http://127.0.0.1:" + std::to_string(proxy.port());
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy"}) {
    ::setenv(name, url.c_str(), 1);
  }
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy"}) {
    ::unsetenv(name);
  }
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(proxy.touched() == 0);
}
