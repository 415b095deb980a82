// Purpose: the engine stays correct and fast with many endpoints, names and
// multis.
// Thread: one; the servers have their own.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "dns_server.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

std::string host_number(std::size_t i) {
  return "127." + std::to_string(1 + i / 62'500 % 250) + "." +
         std::to_string(i / 250 % 250) + "." + std::to_string(1 + i % 250);
}

}  // namespace

TEST_CASE("scale: thousands of endpoints that take a second to answer") {
  ServerOptions everywhere;
  everywhere.ip = "0.0.0.0";
  TestServer server(everywhere);
  server.otherwise(
      [](const Request&) { return Reply().wait(1'000).answer(200); });
  EngineOptions options = test_options();
  options.in_flight_max = 5'000;
  options.timeout_ms = 60'000;
  options.connect_timeout_ms = 30'000;
  options.multi_handles = 64;
  EngineRun run(options);
  // As many as the process may have descriptors for, twice (the server's).
  const std::size_t count =
      std::min<std::size_t>(5'000, run.engine().stats().in_flight_max);
  std::vector<Delivery> all;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string id = std::to_string(i);
    run.endpoint("wh_" + id, server.url(host_number(i), "/"));
    all.push_back(delivery("msg_" + id, "wh_" + id));
  }
  const auto begin = Clock::now();
  run.submit(std::move(all));
  REQUIRE(run.until_attempts(count, 40s));
  const auto took = Clock::now() - begin;
  std::set<std::string> hosts;
  for (const Request& request : server.requests()) {
    hosts.insert(request.local_ip);
  }
  CHECK(hosts.size() == count);
  std::set<std::string> ids;
  for (const Attempt& attempt : run.attempts()) {
    CHECK(attempt.state == DeliveryState::kDelivered);
    ids.insert(attempt.delivery_id);
  }
  CHECK(ids.size() == count);
  // One after the other it would be more than an hour.
  CHECK(took < 8s * kSlowdown);
  CHECK(run.engine().stats().in_flight == 0);
}

TEST_CASE("scale: 300 hanging names at once leave a good name alone") {
  TestServer server;
  DnsServer names;
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  options.connect_timeout_ms = 20'000;
  options.timeout_ms = 20'000;
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_known", server.url("known.example", "/"));
  run.outcome(delivery("msg_known", "wh_known"));
  for (int i = 0; i < 300; ++i) {
    const std::string id = std::to_string(i);
    run.endpoint(id, "http://held" + id + ".example/");
    run.submit(delivery("msg_" + id, id));
  }
  REQUIRE(run.until([&] { return names.held() >= 600; }));
  auto begin = Clock::now();
  CHECK(run.outcome(delivery("msg_known_2", "wh_known")).state ==
        DeliveryState::kDelivered);
  CHECK(Clock::now() - begin < 200ms * kSlowdown);
  run.endpoint("wh_new", server.url("new.example", "/"));
  begin = Clock::now();
  CHECK(run.outcome(delivery("msg_new", "wh_new")).state ==
        DeliveryState::kDelivered);
  CHECK(Clock::now() - begin < 200ms * kSlowdown);
  // Nor does stopping wait for them.
  begin = Clock::now();
  CHECK(run.engine().stop(0).ok());
  CHECK(Clock::now() - begin < 300ms * kSlowdown);
}

TEST_CASE("scale: one submission fans out to many webhooks") {
  TestServer server;
  EngineOptions options = test_options();
  options.multi_handles = GENERATE(1U, 3U, 64U);
  options.destination_in_flight_max = 64;
  EngineRun run(options);
  const auto body = std::make_shared<const std::string>(1'000, 'b');
  std::vector<Delivery> all;
  for (int i = 0; i < 2'000; ++i) {
    const std::string lane = std::to_string(i % 100);
    if (i < 100) {
      run.endpoint(lane, server.url("/" + lane));
    }
    all.push_back(delivery("msg_" + std::to_string(i), lane));
    all.back().body = body;
  }
  const auto begin = Clock::now();
  run.submit(std::move(all));
  REQUIRE(run.until_attempts(2'000, 20s));
  CHECK(Clock::now() - begin < 5s * kSlowdown);
  CHECK(server.count() == 2'000);
  CHECK(server.connections() <= 64);
  CHECK(body.use_count() == 1);  // nobody holds on to it
}

TEST_CASE("scale: deleted lanes leave nothing behind") {
  TestServer server;
  EngineRun run;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 50; ++i) {
      const std::string id = std::to_string(round * 50 + i);
      run.endpoint(id, server.url("/"));
      run.submit(delivery("msg_" + id, id));
    }
    run.turn(0);
    for (int i = 0; i < 50; ++i) {
      REQUIRE(
          run.engine().delete_endpoint(std::to_string(round * 50 + i)).ok());
    }
  }
  REQUIRE(run.until([&] { return run.ended() == 1'000; }));
  run.turn(0);
  CHECK(run.attempts().size() == 1'000);
  CHECK(run.engine().stats().lanes == 0);
  CHECK(run.engine().stats().waiting == 0);
}
