// Purpose: receivers that never answer get no more than their share of the
// places, at the destination of a good receiver and in the whole engine.
// Thread: one; the servers have their own.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "dns_server.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"
#include "webhooks/retry_schedule.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

ServerOptions everywhere() {
  ServerOptions options;
  options.ip = "0.0.0.0";
  return options;
}

Handler hang() {
  return [](const Request&) { return Reply().hang(); };
}

// Retries soon and often, so that a hanging delivery always wants a place.
EngineOptions pressing(std::uint32_t timeout_ms) {
  EngineOptions options = test_options();
  options.timeout_ms = timeout_ms;
  options.retry_delays_ms = std::vector<std::uint32_t>(kRetryStepsMax, 5);
  return options;
}

std::string lane_id(const std::string& prefix, int lane) {
  return prefix + std::to_string(lane);
}

void submit_many(EngineRun& run, const std::string& webhook_id, int count) {
  std::vector<Delivery> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(
        delivery(webhook_id + "_" + std::to_string(i) + "_msg", webhook_id));
  }
  run.submit(std::move(out));
}

std::string loopback(int i) { return "127.0.7." + std::to_string(i + 1); }

// Delivers to wh_good one by one; returns the longest it took and the most
// that was in flight meanwhile.
struct Seen {
  double slowest_ms = 0;
  int late = 0;  // took longer than it takes to miss a place
  int delivered = 0;
  std::uint64_t in_flight = 0;
};

Seen deliver_for(EngineRun& run, std::chrono::milliseconds time) {
  Seen seen;
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    const auto begin = std::chrono::steady_clock::now();
    const Attempt attempt = run.outcome(
        delivery("good" + std::to_string(seen.delivered), "wh_good"));
    CHECK(attempt.state == DeliveryState::kDelivered);
    const std::chrono::duration<double, std::milli> took =
        std::chrono::steady_clock::now() - begin;
    seen.slowest_ms = std::max(seen.slowest_ms, took.count());
    seen.late += took.count() > 100 * kSlowdown ? 1 : 0;
    seen.in_flight = std::max(seen.in_flight, run.engine().stats().in_flight);
    ++seen.delivered;
    run.run_for(10ms);
  }
  return seen;
}

// The same beside this many hanging lanes, each on the host that `host_of`
// returns: the good one stays fast.
Seen beside_hanging(TestServer& server, const EngineOptions& options,
                    const std::string& good_host, int lanes,
                    const std::function<std::string(int)>& host_of) {
  INFO("circuit_failures " << options.circuit_failures);
  server.otherwise(hang());
  server.on("/good", answer(200));
  EngineRun run(options);
  run.endpoint("wh_good", server.url(good_host, "/good"));
  for (int lane = 0; lane < lanes; ++lane) {
    run.endpoint(lane_id("bad", lane), server.url(host_of(lane), "/hang"));
    submit_many(run, lane_id("bad", lane), 6);
  }
  run.run_for(50ms);
  CHECK(run.outcome(delivery("first", "wh_good")).state ==
        DeliveryState::kDelivered);
  const Seen seen = deliver_for(run, 3s);
  CHECK(seen.slowest_ms < 100 * kSlowdown);
  CHECK(seen.delivered > 20);
  return seen;
}

// The most in flight while it runs.
std::uint64_t peak_for(EngineRun& run, std::chrono::milliseconds time) {
  std::uint64_t most = 0;
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    run.turn(5);
    most = std::max(most, run.engine().stats().in_flight);
  }
  return most;
}

std::size_t lanes_heard_of(const EngineRun& run, std::size_t from) {
  std::set<std::string> ids;
  for (std::size_t i = from; i < run.attempts().size(); ++i) {
    ids.insert(run.attempts()[i].webhook_id);
  }
  return ids.size();
}

}  // namespace

TEST_CASE("fairness: lanes that hang leave room for a good one beside them") {
  TestServer server;
  EngineOptions options = pressing(700);
  options.destination_in_flight_max = 64;
  options.circuit_failures = GENERATE(0U, 3U);
  const std::string host = "127.0.0.1";
  const Seen seen = beside_hanging(server, options, host, 80,
                                   [&](int /*lane*/) { return host; });
  CHECK(seen.in_flight >= 32);
  CHECK(seen.in_flight <= 49);
}

TEST_CASE("fairness: lanes that hang leave room for a good one elsewhere") {
  TestServer server(everywhere());
  EngineOptions options = pressing(700);
  options.in_flight_max = 32;
  options.circuit_failures = GENERATE(0U, 3U);
  const Seen seen = beside_hanging(server, options, "127.0.8.1", 100, loopback);
  CHECK(seen.in_flight >= 16);
  CHECK(seen.in_flight <= 25);
}

TEST_CASE("fairness: failing lanes alone get half of the places") {
  const bool by_host = GENERATE(false, true);
  INFO((by_host ? "of the host" : "of the engine"));
  TestServer server;
  server.otherwise(hang());
  EngineOptions options = pressing(60);
  (by_host ? options.destination_in_flight_max : options.in_flight_max) = 16;
  EngineRun run(options);
  for (int lane = 0; lane < 30; ++lane) {
    run.endpoint(lane_id("bad", lane), server.url("/hang"));
    submit_many(run, lane_id("bad", lane), 3);
  }
  REQUIRE(run.until([&] { return lanes_heard_of(run, 0) == 30; }));
  run.run_for(200ms);
  const std::size_t before = run.attempts().size();
  CHECK(peak_for(run, 1s) == 8);
  // They take turns, and none is forgotten.
  REQUIRE(run.until([&] { return lanes_heard_of(run, before) == 30; }));
}

TEST_CASE("fairness: unproven lanes get at most three quarters") {
  const bool by_host = GENERATE(false, true);
  INFO((by_host ? "of the host" : "of the engine"));
  TestServer server;
  server.otherwise(hang());
  EngineOptions options = pressing(5'000);
  (by_host ? options.destination_in_flight_max : options.in_flight_max) = 16;
  EngineRun run(options);
  for (int lane = 0; lane < 30; ++lane) {
    run.endpoint(lane_id("new", lane), server.url("/hang"));
    submit_many(run, lane_id("new", lane), 3);
  }
  CHECK(peak_for(run, 500ms) == 12);
}

TEST_CASE("fairness: a lane that answers with errors counts as good") {
  TestServer server;
  server.otherwise([](const Request&) { return Reply().wait(30).answer(500); });
  EngineOptions options = pressing(5'000);
  options.in_flight_max = 16;
  EngineRun run(options);
  for (int lane = 0; lane < 30; ++lane) {
    run.endpoint(lane_id("bad", lane), server.url("/"));
    submit_many(run, lane_id("bad", lane), 3);
  }
  REQUIRE(run.until([&] { return run.engine().stats().in_flight == 16; }));
}

// These receivers answer, so they may have every place. But each holds its
// places for long, while the good one needs a place for a moment.
TEST_CASE("fairness: lanes that answer late leave room for a good one") {
  const bool by_host = GENERATE(true, false);
  // Late with the answer, or with its body.
  const bool body = GENERATE(false, true);
  INFO((by_host ? "of the host" : "of the engine") << (body ? ", body" : ""));
  TestServer server;
  server.otherwise([body](const Request&) {
    return body ? Reply()
                      .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
                      .hang()
                : Reply().wait(1'000).answer(200);
  });
  server.on("/good", answer(200));
  EngineOptions options = pressing(10'000);
  options.lane_in_flight_max = 8;
  (by_host ? options.destination_in_flight_max : options.in_flight_max) = 64;
  EngineRun run(options);
  run.endpoint("wh_good", server.url("/good"));
  for (int lane = 0; lane < 16; ++lane) {
    run.endpoint(lane_id("late", lane), server.url("/late"));
    submit_many(run, lane_id("late", lane), 300);
  }
  // Until they have had a chance to take what they may.
  REQUIRE(run.until([&] { return run.attempts().size() >= 200; }, 20s));
  const Seen seen = deliver_for(run, 2s);
  CHECK(seen.in_flight >= 30);
  CHECK(seen.late <= 1);
  CHECK(seen.delivered > 20);
}

TEST_CASE("fairness: a new URL has to answer before it counts as good") {
  TestServer server;
  server.on("/good", answer(200));
  server.on("/hang", Reply().hang());
  EngineOptions options = pressing(5'000);
  options.in_flight_max = 8;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/good"));
  REQUIRE(run.outcome(delivery("first", "wh_1")).state ==
          DeliveryState::kDelivered);
  run.endpoint("wh_1", server.url("/hang"));
  submit_many(run, "wh_1", 8);
  CHECK(peak_for(run, 200ms) == 6);
}

TEST_CASE("fairness: one or two places are enough to deliver everything") {
  const std::uint32_t most = GENERATE(1U, 2U);
  const bool by_host = GENERATE(false, true);
  INFO(most << (by_host ? " per host" : " in all"));
  TestServer server;
  server.on("/hang", Reply().hang());
  server.on("/error", answer(500));
  EngineOptions options = test_options();
  options.timeout_ms = 100;
  (by_host ? options.destination_in_flight_max : options.in_flight_max) = most;
  EngineRun run(options);
  for (const std::string name : {"hang", "error", "a", "b", "c"}) {
    run.endpoint(name, server.url("/" + name), [](Endpoint& endpoint) {
      // A loaded machine must not make a good one fail.
      endpoint.timeout_ms = endpoint.webhook_id == "hang" ? 100 : 3'000;
    });
    submit_many(run, name, 4);
  }
  REQUIRE(run.until([&] { return run.ended() == 20; }, 20s));
  std::size_t delivered = 0;
  for (const Attempt& attempt : run.attempts()) {
    delivered += attempt.state == DeliveryState::kDelivered ? 1U : 0U;
  }
  CHECK(delivered == 12);
}

// Lanes are deleted and changed wherever they wait: in the engine's queue, for
// their destination, with its place, for a name, and for a place after that.
TEST_CASE("fairness: lanes may be deleted or changed while they wait") {
  TestServer server(everywhere());
  server.otherwise(hang());
  server.on("/good", answer(200));
  EngineOptions options = pressing(40);
  options.destination_in_flight_max = 5;
  options.destination_rate_per_s = 200;
  options.in_flight_max = 6;
  const DnsServer names({"127.0.0.1"});
  options.dns_servers = names.address();
  EngineRun run(options);
  std::minstd_rand random(7);
  const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
  const std::vector<std::string> hosts = {"127.0.0.5", "127.0.0.6",
                                          "one.example", "two.example"};
  std::size_t submitted = 0;
  for (int round = 0; round < 400; ++round) {
    const std::string id = lane_id("wh_", below(24));
    if (below(4) == 0) {
      REQUIRE(run.engine().delete_endpoint(id).ok());
    } else {
      const std::string& host = hosts[static_cast<std::size_t>(below(4))];
      run.endpoint(id, server.url(host, below(3) == 0 ? "/good" : "/hang"));
      for (int i = 0; i < 3; ++i, ++submitted) {
        Delivery one = delivery("msg" + std::to_string(submitted), id);
        one.manual = below(5) == 0;
        run.submit(std::move(one));
      }
    }
    run.turn(static_cast<std::uint32_t>(below(4)));
  }
  for (int lane = 0; lane < 24; ++lane) {
    REQUIRE(run.engine().delete_endpoint(lane_id("wh_", lane)).ok());
  }
  REQUIRE(run.until([&] { return run.ended() == submitted; }));
  run.run_for(100ms);
  CHECK(run.engine().stats().waiting == 0);
  CHECK(run.engine().stats().in_flight == 0);
  // Every place is free again.
  server.on("/slow",
            [](const Request&) { return Reply().wait(50).answer(200); });
  run.endpoint("wh_last", server.url("127.0.0.5", "/slow"),
               [](Endpoint& endpoint) { endpoint.timeout_ms = 5'000; });
  CHECK(run.outcome(delivery("last", "wh_last")).state ==
        DeliveryState::kDelivered);
  submit_many(run, "wh_last", 60);
  CHECK(peak_for(run, 500ms) == 5);
}

namespace {

// Of those that were put off, when each is due, from now.
std::vector<std::int64_t> put_off_ms(const EngineRun& run, std::int64_t now) {
  std::vector<std::int64_t> due;
  for (const Attempt& attempt : run.attempts()) {
    if (attempt.state != DeliveryState::kParked) {
      continue;
    }
    CHECK(attempt.number == 0);
    CHECK(attempt.error == ErrorClass::kNone);
    REQUIRE(attempt.next_at_ms);
    due.push_back(*attempt.next_at_ms - now);
  }
  return due;
}

}  // namespace

TEST_CASE("fairness: a lane parks what it cannot start in time") {
  TestServer server;
  server.otherwise(hang());
  EngineOptions options = test_options();
  options.park_after_ms = 10'000;
  options.timeout_ms = 20'000;
  options.lane_in_flight_max = 8;
  EngineRun run(options);
  run.endpoint("wh_busy", server.url("/hang"),
               [](Endpoint& endpoint) { endpoint.rate_per_s = 50; });
  submit_many(run, "wh_busy", 600);
  run.run_for(100ms);
  // 500 begin within ten seconds, besides the eight that are under way.
  const std::int64_t now = unix_ms();
  const auto due = put_off_ms(run, now);
  CHECK(due.size() >= 92);
  CHECK(due.size() <= 100);
  CHECK(run.engine().stats().parked == due.size());
  CHECK(run.engine().stats().waiting == 600 - due.size() - 8);
  // At the lane's own rate, from then on.
  for (std::size_t i = 0; i < due.size(); ++i) {
    const std::int64_t expected =
        10'000 + 20 * static_cast<std::int64_t>(i + 1);
    CHECK(due[i] <= expected + 5);
    CHECK(due[i] >= expected - 5'000);
    CHECK((i == 0 || due[i] - due[i - 1] >= 19));
  }
  // A manual delivery is not parked, and goes first.
  Delivery wish = delivery("wish", "wh_busy");
  wish.manual = true;
  run.submit(std::move(wish));
  run.run_for(50ms);
  CHECK(run.attempts("wish").empty());
}

TEST_CASE(
    "fairness: lanes with more than they may send do not fill the engine") {
  TestServer server;
  server.otherwise(hang());
  server.on("/good", answer(200));
  EngineOptions options = test_options();
  options.waiting_max = 2'000;
  options.destination_in_flight_max = 64;
  EngineRun run(options);
  run.endpoint("wh_good", server.url("/good"));
  CHECK(run.outcome(delivery("first", "wh_good")).state ==
        DeliveryState::kDelivered);
  for (int lane = 0; lane < 4; ++lane) {
    run.endpoint(lane_id("bad", lane), server.url("/hang"));
  }
  for (int round = 0; round < 20; ++round) {
    for (int lane = 0; lane < 4; ++lane) {
      std::vector<Delivery> out;
      for (int i = 0; i < 100; ++i) {
        out.push_back(delivery(lane_id("m", lane) + "_" +
                                   std::to_string(round) + "_" +
                                   std::to_string(i),
                               lane_id("bad", lane)));
      }
      run.submit(std::move(out));
    }
    run.turn(1);
    const EngineStats stats = run.engine().stats();
    CHECK(stats.waiting <= 1'800);
    const std::string id = "good" + std::to_string(round);
    CHECK(run.outcome(delivery(id, "wh_good")).state ==
          DeliveryState::kDelivered);
  }
}
