// Purpose: only addresses that the policy lets through are ever dialled,
// whatever a name, a literal or a later answer says. The trap is a server on
// all of 127/8 of which the policy allows but one address: every connection to
// another one is seen.
// Thread: one; the server has its own, lookups run on the resolver's.
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "allowing.hpp"
#include "catch.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

constexpr const char* kAllowed = "127.0.0.2";
constexpr const char* kRefused = "127.0.0.3";

IpAddress ip(const std::string& text) {
  const auto address = IpAddress::parse(text);
  REQUIRE(address.has_value());
  return *address;
}

// Public addresses and 127.0.0.2; names answer what `resolve` says.
EngineOptions strict_options(ResolveFunction resolve) {
  EngineOptions options = test_options();
  options.policy.addresses = webhooks_test::allowing("127.0.0.2:* 127.0.0.4:*");
  options.resolve = std::move(resolve);
  options.retry_delays_ms = {};
  return options;
}

ResolveFunction always(std::vector<std::string> answers) {
  std::vector<IpAddress> addresses;
  for (const std::string& answer : answers) {
    addresses.push_back(ip(answer));
  }
  return [addresses](const std::string&) { return Resolution{addresses, {}}; };
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
  // What is inside the operator's network is nobody's business.
  CHECK(attempt.detail.find("127") == std::string::npos);
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
  EngineRun run(strict_options(always({kAllowed})));
  run.endpoint("wh_1", trap.url());
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.remote_ip == kAllowed);
  CHECK(trap.server.requests().front().local_ip == kAllowed);
  CHECK(trap.server.requests().front().header("host") ==
        "hook.example:" + std::to_string(trap.server.port()));
}

TEST_CASE("address: one refused answer refuses the name, and no packet goes") {
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
    EngineRun run(strict_options(always(answer)));
    run.endpoint("wh_1", trap.url());
    check_blocked(run.outcome(delivery("msg_1", "wh_1")));
    CHECK(trap.server.connections() == 0);
    CHECK(run.engine().stats().connections_opened == 0);
  }
}

TEST_CASE("address: a blocked name is tried again, it may be put right") {
  Trap trap;
  auto calls = std::make_shared<std::atomic<int>>(0);
  EngineOptions options = strict_options([calls](const std::string&) {
    return Resolution{{ip(++*calls == 1 ? kRefused : kAllowed)}, {}};
  });
  options.dns_cache_ms = 1;
  options.retry_delays_ms = {50, 50, 50};
  EngineRun run(options);
  run.endpoint("wh_1", trap.url());
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return run.ended() == 1; }));
  CHECK(run.attempts().front().error == ErrorClass::kBlockedAddress);
  CHECK(run.attempts().back().state == DeliveryState::kDelivered);
}

TEST_CASE("address: a name that moves to a refused address is caught") {
  // The first answer is fine, every later one is not: what was judged once is
  // judged again at each dial.
  Trap trap;
  trap.server.otherwise([](const Request&) {
    return answer(200, {{"Connection", "close"}}).close();
  });
  auto rebound = std::make_shared<std::atomic<bool>>(false);
  EngineOptions options = strict_options([rebound](const std::string&) {
    return Resolution{{ip(*rebound ? kRefused : kAllowed)}, {}};
  });
  options.dns_cache_ms = 1;
  EngineRun run(options);
  run.endpoint("wh_1", trap.url());
  CHECK(run.outcome(delivery("msg_1", "wh_1")).state ==
        DeliveryState::kDelivered);
  *rebound = true;
  const std::size_t before = trap.server.connections();
  std::size_t blocked = 0;
  for (int i = 0; i < 20 && blocked < 3; ++i) {
    const Attempt attempt =
        run.outcome(delivery("msg_again_" + std::to_string(i), "wh_1"));
    blocked += attempt.error == ErrorClass::kBlockedAddress;
    run.run_for(10ms);
  }
  CHECK(blocked == 3);
  for (const Request& request : trap.server.requests()) {
    CHECK(request.local_ip == kAllowed);
  }
  CHECK(trap.server.connections() <= before + 17);
}

TEST_CASE("address: a name that moves is followed") {
  Trap trap;
  trap.server.otherwise([](const Request&) {
    return answer(200, {{"Connection", "close"}}).close();
  });
  auto moved = std::make_shared<std::atomic<bool>>(false);
  EngineOptions options = strict_options([moved](const std::string&) {
    return Resolution{{ip(*moved ? "127.0.0.4" : kAllowed)}, {}};
  });
  options.dns_cache_ms = 1;
  EngineRun run(options);
  run.endpoint("wh_1", trap.url());
  run.outcome(delivery("msg_1", "wh_1"));
  *moved = true;
  std::string ip;
  for (int i = 0; i < 50 && ip != "127.0.0.4"; ++i) {
    ip = run.outcome(delivery("msg_again_" + std::to_string(i), "wh_1"))
             .remote_ip;
    run.run_for(10ms);
  }
  CHECK(ip == "127.0.0.4");
}

TEST_CASE("address: literals are judged when dialled, not only when saved") {
  Trap trap;
  EngineRun run(strict_options(always({kAllowed})));
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

TEST_CASE("address: what is dialled is judged, not what was resolved") {
  // The text that curl dials and the host that was resolved differ: a fault
  // of the caller that must not become a hole.
  Trap trap;
  EngineRun run(strict_options(always({kAllowed})));
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

TEST_CASE("address: the next of several is tried when one is dead") {
  TestServer server;  // on 127.0.0.1 only
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  for (const std::vector<std::string>& answer :
       {std::vector<std::string>{"127.0.0.9", "127.0.0.1"},
        std::vector<std::string>{"::1", "127.0.0.1"},
        std::vector<std::string>{"127.0.0.7", "::1", "127.0.0.8",
                                 "127.0.0.1"}}) {
    options.resolve = always(answer);
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

TEST_CASE("address: the system's resolver knows localhost") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("localhost", "/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  // A bare system may have no /etc/hosts, and then has no localhost either.
  if (resolve_with_getaddrinfo("localhost").addresses.empty()) {
    CHECK(attempt.error == ErrorClass::kDnsError);
    return;
  }
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.dns_us.has_value());
}

TEST_CASE("address: names without an answer") {
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  options.resolve = [](const std::string& host) -> Resolution {
    if (host == "throws.example") {
      throw std::runtime_error("no");
    }
    if (host == "silent.example") {
      return {};
    }
    return {{},
            std::string("no such name \xff\x1b[31m") + std::string(1'000, 'n')};
  };
  EngineRun run(options);
  for (const std::string host :
       {"none.example", "throws.example", "silent.example"}) {
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
  auto released = std::make_shared<std::atomic<bool>>(false);
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  options.dns_timeout_ms = 200;
  options.resolve = [released](const std::string&) {
    while (!*released) {
      std::this_thread::sleep_for(5ms);
    }
    return Resolution{};
  };
  const auto attempt_with = [](EngineOptions with, std::uint32_t timeout_ms) {
    EngineRun run(std::move(with));
    run.endpoint("wh_1", "http://hang.example/",
                 [&](Endpoint& endpoint) { endpoint.timeout_ms = timeout_ms; });
    const auto begin = std::chrono::steady_clock::now();
    const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
    const auto took = std::chrono::steady_clock::now() - begin;
    CHECK(error_name(attempt.error) == "dns_timeout");
    CHECK(attempt.status == 0);
    CHECK_FALSE(attempt.detail.empty());
    CHECK(run.engine().stats().resolver_stuck <= 1);
    return took;
  };
  const auto by_dns = attempt_with(options, 2'000);
  CHECK(by_dns >= 190ms);
  CHECK(by_dns < 500ms * kSlowdown);
  // The whole attempt, DNS included, ends when its time is over.
  options.dns_timeout_ms = 5'000;
  const auto by_whole = attempt_with(options, 300);
  CHECK(by_whole >= 290ms);
  CHECK(by_whole < 700ms * kSlowdown);
  *released = true;
  std::this_thread::sleep_for(30ms);
}
