// Purpose: the engine dials only addresses that the policy allows, whatever a
// name, a literal or a later answer says. The trap is a server on all of 127/8;
// the policy allows two of its addresses, and the test sees a connection to any
// other one.
// Thread: one; the servers have their own.
#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "allowing.hpp"
#include "catch.hpp"
#include "dns_server.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

constexpr const char* kAllowed = "127.0.0.2";
constexpr const char* kRefused = "127.0.0.3";

// Public addresses, 127.0.0.2 and 127.0.0.4.
EngineOptions strict_options(const DnsServer& names) {
  EngineOptions options = test_options();
  options.policy.addresses = webhooks_test::allowing("127.0.0.2:* 127.0.0.4:*");
  options.dns_servers = names.address();
  options.retry_delays_ms = {};
  return options;
}

// One answer, and another once `later` says so.
DnsServer moving(std::string from, std::string to,
                 std::function<bool()> later) {
  return DnsServer(DnsHandler([=](const std::string&, bool) {
    return DnsAnswer{{later() ? to : from}, 1};
  }));
}

struct Trap {
  TestServer server{ServerOptions{"0.0.0.0", {}, nullptr, {}}};
  std::string url() const { return server.url("hook.example", "/"); }
};

void check_blocked(const Attempt& attempt) {
  CHECK(error_name(attempt.error) == "blocked_address");
  CHECK(attempt.state == DeliveryState::kFailed);
  CHECK(attempt.status == 0);
  CHECK(attempt.remote_ip.empty());
  CHECK_FALSE(attempt.detail.empty());
  // The detail must not reveal what is inside the operator's network.
  CHECK(attempt.detail.find("127") == std::string::npos);
}

// Sends until one attempt is as `wanted` says.
bool until_outcome(EngineRun& run,
                   const std::function<bool(const Attempt&)>& wanted) {
  const auto end = std::chrono::steady_clock::now() + 10s * kSlowdown;
  for (int i = 0; std::chrono::steady_clock::now() < end; ++i) {
    if (wanted(
            run.outcome(delivery("msg_until_" + std::to_string(i), "wh_1")))) {
      return true;
    }
    run.run_for(50ms);
  }
  return false;
}

void put_unchecked(EngineRun& run, const std::string& webhook_id, Url url) {
  Endpoint endpoint;
  endpoint.webhook_id = webhook_id;
  endpoint.url = std::move(url);
  endpoint.keys.push_back({SigningKey::parse(kSecretA).value(), std::nullopt});
  REQUIRE(run.engine().put_endpoint(std::move(endpoint)).ok());
}

}  // namespace

TEST_CASE("address: an allowed one is dialled") {
  Trap trap;
  const DnsServer names({kAllowed});
  EngineRun run(strict_options(names));
  run.endpoint("wh_1", trap.url());
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.remote_ip == kAllowed);
  CHECK(trap.server.requests().front().local_ip == kAllowed);
  CHECK(trap.server.requests().front().header("host") ==
        "hook.example:" + std::to_string(trap.server.port()));
}

TEST_CASE("address: one refused address refuses the name, unsent") {
  const std::vector<std::vector<std::string>> answers = {
      {kRefused},
      {kAllowed, kRefused},
      {kRefused, kAllowed},
      {kAllowed, "127.0.0.4", kRefused},
      {kAllowed, "::1"},
      {kAllowed, "::ffff:127.0.0.3"},
      {kAllowed, "64:ff9b::7f00:3"},
      {kAllowed, "fe80::1"},
      {kAllowed, "169.254.169.254"},
      {kAllowed, "10.0.0.1"},
      {kAllowed, "0.0.0.0"},
      {"::"},
  };
  for (const auto& answer : answers) {
    INFO(answer.back());
    Trap trap;
    const DnsServer names(answer);
    EngineRun run(strict_options(names));
    run.endpoint("wh_1", trap.url());
    check_blocked(run.outcome(delivery("msg_1", "wh_1")));
    CHECK(trap.server.connections() == 0);
    CHECK(run.engine().stats().connections_opened == 0);
  }
}

TEST_CASE("address: a blocked name is retried") {
  Trap trap;
  std::atomic<bool> right{false};
  const DnsServer names =
      moving(kRefused, kAllowed, [&] { return right.load(); });
  EngineOptions options = strict_options(names);
  options.retry_delays_ms = std::vector<std::uint32_t>(12, 200);
  EngineRun run(options);
  run.endpoint("wh_1", trap.url());
  CHECK(run.outcome(delivery("msg_1", "wh_1")).error ==
        ErrorClass::kBlockedAddress);
  right = true;
  REQUIRE(run.until([&] { return run.ended() == 1; }));
  CHECK(run.attempts().back().state == DeliveryState::kDelivered);
}

TEST_CASE("address: a name that moves to a refused address is refused") {
  // The first answer is allowed, every later one is not: each dial is judged
  // again.
  Trap trap;
  trap.server.otherwise([](const Request&) {
    return answer(200, {{"Connection", "close"}}).close();
  });
  std::atomic<bool> rebound{false};
  const DnsServer names =
      moving(kAllowed, kRefused, [&] { return rebound.load(); });
  EngineRun run(strict_options(names));
  run.endpoint("wh_1", trap.url());
  CHECK(run.outcome(delivery("msg_1", "wh_1")).state ==
        DeliveryState::kDelivered);
  rebound = true;
  REQUIRE(until_outcome(run, [](const Attempt& attempt) {
    return attempt.error == ErrorClass::kBlockedAddress;
  }));
  const std::size_t before = trap.server.connections();
  for (int i = 0; i < 3; ++i) {
    check_blocked(run.outcome(delivery("msg_" + std::to_string(i), "wh_1")));
  }
  for (const Request& request : trap.server.requests()) {
    CHECK(request.local_ip == kAllowed);
  }
  CHECK(trap.server.connections() == before);
}

TEST_CASE("address: a moved name is followed despite kept connections") {
  const bool kept = GENERATE(true, false);
  Trap trap;
  trap.server.otherwise([kept](const Request&) {
    return kept ? answer(200) : answer(200, {{"Connection", "close"}}).close();
  });
  std::atomic<bool> moved{false};
  const DnsServer names =
      moving(kAllowed, "127.0.0.4", [&] { return moved.load(); });
  EngineRun run(strict_options(names));
  run.endpoint("wh_1", trap.url());
  CHECK(run.outcome(delivery("msg_1", "wh_1")).remote_ip == kAllowed);
  moved = true;
  CHECK(until_outcome(run, [](const Attempt& attempt) {
    return attempt.remote_ip == "127.0.0.4";
  }));
  CHECK(run.outcome(delivery("msg_2", "wh_1")).remote_ip == "127.0.0.4");
}

TEST_CASE("address: a refused connection discards the cached answer") {
  TestServer server(ServerOptions{"127.0.0.4", {}, nullptr, {}});
  std::atomic<bool> moved{false};
  const DnsServer names([&](const std::string&, bool) {
    return DnsAnswer{{moved ? "127.0.0.4" : kAllowed}, 3'600};
  });
  EngineRun run(strict_options(names));
  run.endpoint("wh_1", server.url("hook.example", "/"));
  CHECK(run.outcome(delivery("msg_1", "wh_1")).error ==
        ErrorClass::kConnectionRefused);
  moved = true;
  CHECK(until_outcome(run, [](const Attempt& attempt) {
    return attempt.state == DeliveryState::kDelivered;
  }));
}

TEST_CASE("address: literals are judged when dialled") {
  Trap trap;
  const DnsServer names({kAllowed});
  EngineRun run(strict_options(names));
  const std::uint16_t port = trap.server.port();
  int number = 0;
  for (const std::string& literal :
       {std::string(kRefused), std::string("127.0.0.1"), std::string("0.0.0.0"),
        std::string("::1"), std::string("::ffff:127.0.0.3"), std::string("::"),
        std::string("169.254.169.254")}) {
    INFO(literal);
    const std::string id = std::to_string(++number);
    put_unchecked(run, id, unchecked_url("http", literal, port, "/"));
    check_blocked(run.outcome(delivery("msg_" + id, id)));
  }
  CHECK(trap.server.connections() == 0);
  put_unchecked(run, "fine", unchecked_url("http", kAllowed, port, "/"));
  CHECK(run.outcome(delivery("msg_fine", "fine")).state ==
        DeliveryState::kDelivered);
}

TEST_CASE("address: the dialled address is judged, too") {
  // The host that curl dials differs from the host that was resolved. Even such
  // a caller's mistake must not open a way in.
  Trap trap;
  const DnsServer names({kAllowed});
  EngineRun run(strict_options(names));
  int number = 0;
  for (const std::string& dialled :
       {std::string(kRefused), std::string("localhost"), std::string("[::1]"),
        std::string("2130706435"), std::string("0x7f000003"),
        std::string("0177.0.0.3"), std::string("127.3")}) {
    INFO(dialled);
    const std::string id = std::to_string(++number);
    Url url = unchecked_url("http", "hook.example", trap.server.port(), "/");
    url.text = "http://" + dialled + ":" + std::to_string(url.port) + "/";
    put_unchecked(run, id, std::move(url));
    check_blocked(run.outcome(delivery("msg_" + id, id)));
  }
  CHECK(trap.server.connections() == 0);
}

TEST_CASE("address: after a dead address the next one is tried") {
  TestServer server;  // on 127.0.0.1 only
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  for (const std::vector<std::string>& answer :
       {std::vector<std::string>{"127.0.0.9", "127.0.0.1"},
        std::vector<std::string>{"::1", "127.0.0.1"},
        std::vector<std::string>{"127.0.0.7", "::1", "127.0.0.8",
                                 "127.0.0.1"}}) {
    const DnsServer names(answer);
    options.dns_servers = names.address();
    EngineRun run(options);
    run.endpoint("wh_1", server.url("hook.example", "/"));
    const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
    INFO("detail: " << attempt.detail);
    CHECK(attempt.state == DeliveryState::kDelivered);
    CHECK(attempt.remote_ip == "127.0.0.1");
  }
}

TEST_CASE("address: IPv6") {
  TestServer server(ServerOptions{"::1", {}, nullptr, {}});
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.remote_ip == "::1");
  CHECK(server.requests().front().header("host") ==
        "[::1]:" + std::to_string(server.port()));
}

TEST_CASE("address: names without an answer") {
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  const DnsServer names([](const std::string& name, bool) -> DnsAnswer {
    if (name == "many.example") {
      return {std::vector<std::string>(65, "127.0.0.1")};
    }
    return {{}, 60, name == "none.example" ? kNxDomain : kServFail};
  });
  options.dns_servers = names.address();
  EngineRun run(options);
  for (const std::string host :
       {"none.example", "fails.example", "many.example"}) {
    INFO(host);
    run.endpoint(host, "http://" + host + "/");
    const Attempt attempt = run.outcome(delivery("msg_" + host, host));
    CHECK(error_name(attempt.error) == "dns_error");
    CHECK(attempt.state == DeliveryState::kFailed);
    CHECK(attempt.status == 0);
    CHECK_FALSE(attempt.detail.empty());
    CHECK(attempt.detail.size() <= kDetailBytesMax);
    for (const char c : attempt.detail) {
      CHECK((c >= ' ' && c <= '~'));
    }
    CHECK_FALSE(attempt.connect_us.has_value());
    CHECK(attempt.total_us.has_value());
  }
}

TEST_CASE("address: a name server that hangs is given up in time") {
  DnsServer names;
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  options.dns_servers = names.address();
  EngineRun run(options);
  struct Patience {
    std::uint32_t whole_ms;
    std::uint32_t connect_ms;
  };
  // DNS counts towards the attempt's time and towards its connect timeout.
  for (const Patience patience : {Patience{2'000, 200}, Patience{200, 2'000}}) {
    run.endpoint("wh_1", "http://held.example/", [&](Endpoint& endpoint) {
      endpoint.timeout_ms = patience.whole_ms;
      endpoint.connect_timeout_ms = patience.connect_ms;
    });
    const Attempt attempt = run.outcome(
        delivery("msg_" + std::to_string(patience.whole_ms), "wh_1"));
    CHECK(error_name(attempt.error) == "dns_timeout");
    CHECK(attempt.status == 0);
    CHECK_FALSE(attempt.detail.empty());
    CHECK(attempt.total_us.value() >= 200'000);
    CHECK(attempt.total_us.value() < 1'000'000U * kSlowdown);
  }
  // The next attempt joins the lookup that still runs.
  CHECK(names.count("held.example") <= 2);
  const ClosedPort closed;
  run.endpoint("wh_1", "http://held.example:" + std::to_string(closed.port()));
  run.submit(delivery("msg_joins", "wh_1"));
  run.turn(0);
  names.release();
  REQUIRE(run.until_attempts(3));
  CHECK(error_name(run.attempts().back().error) == "connection_refused");
}

TEST_CASE("address: DNS and connection share one time limit") {
  ServerOptions how;
  how.accept = ServerOptions::Accept::kNever;
  TestServer never(how);
  const auto answers_at =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(400);
  const DnsServer names([&](const std::string&, bool) {
    return std::chrono::steady_clock::now() < answers_at
               ? std::nullopt
               : std::optional(DnsAnswer{{"127.0.0.1"}});
  });
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  options.connect_timeout_ms = 800;
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_1", never.url("hook.example", "/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(error_name(attempt.error) == "connect_timeout");
  CHECK(attempt.total_us.value() < 1'100'000U * kSlowdown);
}
