// Purpose: limits hold, and a slow, broken or limited lane delays no other one.
// Thread: one; the server has its own, the name server as well.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "allocation_limit.hpp"
#include "catch.hpp"
#include "dns_server.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

std::vector<Delivery> many(int count, const std::string& webhook_id,
                           const std::string& prefix = "msg_") {
  std::vector<Delivery> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(delivery(prefix + std::to_string(i), webhook_id));
  }
  return out;
}

Handler after(std::uint32_t ms, int status = 200) {
  return
      [ms, status](const Request&) { return Reply().wait(ms).answer(status); };
}

std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

EngineOptions with_steady_clock() {
  EngineOptions options = test_options();
  options.now_ms = steady_ms;
  return options;
}

// No window holds more starts than burst and rate allow. Measured by the
// engine's clock, because requests reach a busy server late and unevenly.
void check_rate(const EngineRun& run, const std::string& lanes, double rate,
                double burst) {
  std::vector<std::int64_t> starts;
  for (const Attempt& attempt : run.attempts()) {
    if (attempt.webhook_id.starts_with(lanes)) {
      starts.push_back(attempt.started_at_ms);
    }
  }
  REQUIRE_FALSE(starts.empty());
  std::ranges::sort(starts);
  double worst = 0;
  for (std::size_t first = 0; first < starts.size(); ++first) {
    for (std::size_t last = first; last < starts.size(); ++last) {
      const auto span_ms =
          static_cast<double>(starts[last] - starts[first] + 20 * kSlowdown);
      const double allowed = burst + rate * span_ms / 1'000 + 1;
      worst = std::max(worst, static_cast<double>(last - first + 1) - allowed);
    }
  }
  CHECK(worst <= 0);
}

// Latency of deliveries to a good server, one by one, in milliseconds.
std::vector<double> latencies(EngineRun& run, const std::string& webhook_id,
                              const std::string& prefix, int count) {
  std::vector<double> out;
  for (int i = 0; i < count; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const Attempt attempt =
        run.outcome(delivery(prefix + std::to_string(i), webhook_id));
    out.push_back(std::chrono::duration<double, std::milli>(
                      std::chrono::steady_clock::now() - begin)
                      .count());
    CHECK(attempt.state == DeliveryState::kDelivered);
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("limits: requests in flight per lane") {
  TestServer server;
  server.otherwise(after(15));
  EngineOptions options = test_options();
  options.lane_in_flight_max = 3;
  EngineRun run(options);
  run.endpoint("wh_a", server.url("/a"));
  run.endpoint("wh_b", server.url("/b"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 1; });
  run.endpoint("wh_c", server.url("/c"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 7; });
  run.submit(many(60, "wh_a", "a"));
  run.submit(many(30, "wh_b", "b"));
  run.submit(many(60, "wh_c", "c"));
  REQUIRE(run.until_attempts(150));
  CHECK(server.in_flight_peak("/a") == 3);
  CHECK(server.in_flight_peak("/b") == 1);
  CHECK(server.in_flight_peak("/c") == 7);
}

TEST_CASE("limits: in order within a lane of one") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 1; });
  run.submit(many(50, "wh_1"));
  REQUIRE(run.until_attempts(50));
  const auto requests = server.requests();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    CHECK(requests[i].header("webhook-id") == "msg_" + std::to_string(i));
  }
}

TEST_CASE("limits: requests in flight per destination, over all lanes") {
  TestServer server;
  server.otherwise(after(10));
  EngineOptions options = test_options();
  options.destination_in_flight_max = 5;
  EngineRun run(options);
  for (int lane = 0; lane < 10; ++lane) {
    const std::string id = std::to_string(lane);
    run.endpoint(id, server.url("/" + id));
    run.submit(many(20, id, "msg_" + id + "_"));
  }
  REQUIRE(run.until_attempts(200));
  CHECK(server.in_flight_peak() == 5);
  // Lanes take turns: none is served to its end before another begins.
  const auto requests = server.requests();
  std::vector<std::string> early;
  for (std::size_t i = 0; i < 100; ++i) {
    early.push_back(requests[i].path());
  }
  for (int lane = 0; lane < 10; ++lane) {
    INFO(lane);
    CHECK(std::count(early.begin(), early.end(), "/" + std::to_string(lane)) >=
          3);
  }
}

TEST_CASE("limits: a full destination does not hold up another") {
  ServerOptions everywhere;
  everywhere.ip = "0.0.0.0";
  TestServer server(everywhere);
  server.on("/slow", Handler(after(400)));
  EngineOptions options = test_options();
  options.destination_in_flight_max = 2;
  EngineRun run(options);
  run.endpoint("wh_slow", server.url("127.0.0.5", "/slow"));
  run.endpoint("wh_good", server.url("127.0.0.6", "/good"));
  run.submit(many(10, "wh_slow", "slow"));
  run.run_for(30ms);
  const auto took = latencies(run, "wh_good", "good", 20);
  CHECK(took.back() < 100 * kSlowdown);
}

TEST_CASE("limits: rate of a lane") {
  TestServer server;
  EngineOptions options = with_steady_clock();
  options.lane_rate_per_s = 40;
  EngineRun run(options);
  run.endpoint("wh_default", server.url("/default"));
  run.endpoint("wh_own", server.url("/own"),
               [](Endpoint& endpoint) { endpoint.rate_per_s = 10; });
  run.endpoint("wh_free", server.url("/free"),
               [](Endpoint& endpoint) { endpoint.rate_per_s = 100'000; });
  run.submit(many(100, "wh_default", "d"));
  run.submit(many(22, "wh_own", "o"));
  run.submit(many(200, "wh_free", "f"));
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(run.until([&] { return server.count("/free") == 200; }, 1s));
  REQUIRE(run.until_attempts(322));
  const auto took = std::chrono::steady_clock::now() - begin;
  check_rate(run, "wh_default", 40, 40);
  check_rate(run, "wh_own", 10, 10);
  // Nor is it withheld: 100 at 40/s after a burst of 40 take 1.5 s.
  CHECK(took > 1'300ms);
  CHECK(took < 2'500ms * kSlowdown);
}

TEST_CASE("limits: rate of a destination, over all lanes") {
  TestServer server;
  EngineOptions options = with_steady_clock();
  options.destination_rate_per_s = 50;
  EngineRun run(options);
  for (int lane = 0; lane < 5; ++lane) {
    const std::string id = std::to_string(lane);
    run.endpoint(id, server.url("/" + id));
    run.submit(many(25, id, "msg_" + id + "_"));
  }
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(run.until_attempts(125));
  const auto took = std::chrono::steady_clock::now() - begin;
  check_rate(run, "", 50, 50);
  CHECK(took > 1'300ms);
  CHECK(took < 2'500ms * kSlowdown);
}

TEST_CASE("limits: a waiting lane costs no processor time") {
  TestServer server;
  EngineOptions options = test_options();
  options.lane_rate_per_s = 2;
  options.destination_rate_per_s = 2;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  run.submit(many(20, "wh_1"));
  run.run_for(200ms);
  const std::uint64_t before = run.engine().stats().loop_turns;
  const std::clock_t clock = std::clock();
  run.run_for(500ms);
  CHECK(run.engine().stats().loop_turns - before < 200);
  CHECK(std::clock() - clock < CLOCKS_PER_SEC / 5);
}

TEST_CASE("limits: requests in flight of the whole engine") {
  TestServer server;
  server.otherwise(after(20));
  EngineOptions options = test_options();
  options.in_flight_max = 10;
  EngineRun run(options);
  for (int lane = 0; lane < 20; ++lane) {
    const std::string id = std::to_string(lane);
    run.endpoint(id, server.url("/" + id));
    run.submit(many(5, id, "msg_" + id + "_"));
  }
  std::uint64_t most = 0;
  REQUIRE(run.until([&] {
    most = std::max(most, run.engine().stats().in_flight);
    return run.attempts().size() == 100;
  }));
  CHECK(server.in_flight_peak() == 10);
  CHECK(most <= 10);
  CHECK(run.engine().stats().in_flight_max == 10);
}

TEST_CASE("limits: waiting for a place is not part of an attempt") {
  TestServer server;
  server.on("/slow", Handler(after(500)));
  EngineOptions options = test_options();
  options.in_flight_max = 1;
  options.retry_delays_ms = {};
  DnsServer names;
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_slow", server.url("/slow"));
  run.endpoint("wh_name", server.url("held.example", "/name"),
               [](Endpoint& endpoint) { endpoint.timeout_ms = 300; });
  // The place is taken while the name is looked up.
  run.submit(delivery("msg_name", "wh_name"));
  run.submit(delivery("msg_slow", "wh_slow"));
  REQUIRE(run.until([&] { return server.count("/slow") == 1; }));
  names.release();
  REQUIRE(run.until_attempts(2));
  const Attempt named = run.attempts("msg_name").front();
  INFO(error_name(named.error) << " " << named.detail);
  CHECK(named.state == DeliveryState::kDelivered);
  CHECK(named.total_us.value() < 300'000U);
}

TEST_CASE("limits: a full queue takes the first ones and says how many") {
  TestServer server;
  EngineOptions options = test_options();
  options.waiting_max = 100;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  std::vector<Delivery> batch = many(150, "wh_1");
  const auto taken = run.engine().submit(batch);
  REQUIRE(taken.ok());
  CHECK(taken.value() == 100);
  // Deliveries that were not taken are still the caller's.
  REQUIRE(batch.size() == 150);
  CHECK(batch[100].id == "msg_100");
  REQUIRE(batch[100].body != nullptr);
  CHECK(batch[149].id == "msg_149");
  std::vector<Delivery> more = many(1, "wh_1", "more");
  const auto refused = run.engine().submit(more);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().reason == "overloaded");
  CHECK(more[0].id == "more0");
  CHECK(run.engine().stats().waiting == 100);
  // A test or a redelivery finds extra room, which is limited too.
  std::size_t manual = 0;
  for (int i = 0; i < 50; ++i) {
    std::vector<Delivery> one = many(1, "wh_1", "manual" + std::to_string(i));
    one[0].manual = true;
    manual += run.engine().submit(one).ok() ? 1U : 0U;
  }
  CHECK(manual >= 10);
  CHECK(manual <= 12);
  REQUIRE(run.until_attempts(100 + manual));
  CHECK(server.count() == 100 + manual);
  CHECK(run.engine().stats().waiting == 0);
  std::vector<Delivery> again = many(3, "wh_1", "again");
  CHECK(run.engine().submit(again).ok());
}

TEST_CASE("limits: waiting deliveries are bounded by their bytes too") {
  TestServer server;
  server.otherwise(after(0, 500));
  EngineOptions options = test_options();
  options.waiting_bytes_max = 4 << 20;
  options.lane_waiting_bytes_max = 1 << 20;
  options.retry_delays_ms = {50'000};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.rate_per_s = 1; });
  const std::string body(200'000, 'b');
  const auto large = [&](const std::string& prefix) {
    std::vector<Delivery> out;
    for (int i = 0; i < 30; ++i) {
      out.push_back(delivery(prefix + std::to_string(i), "wh_1", body));
    }
    return out;
  };
  std::vector<Delivery> batch = large("msg_");
  CHECK(run.engine().submit(batch).value() == 20);
  CHECK(batch[20].body != nullptr);
  std::vector<Delivery> more = large("more_");
  CHECK_FALSE(run.engine().submit(more).ok());
  CHECK(run.engine().stats().waiting_bytes == 20 * body.size());
  // A lane that is full leaves the rest to the store.
  REQUIRE(run.until([&] { return run.attempts().size() == 15; }));
  std::size_t parked = 0;
  for (const Attempt& attempt : run.attempts()) {
    parked += attempt.state == DeliveryState::kParked ? 1U : 0U;
  }
  CHECK(parked == 14);
  CHECK(run.engine().stats().waiting_bytes == 6 * body.size());
  REQUIRE(run.engine().delete_endpoint("wh_1").ok());
  REQUIRE(run.until([&] { return run.engine().stats().waiting == 0; }));
  CHECK(run.engine().stats().waiting_bytes == 0);
}

TEST_CASE("limits: out of memory, submit returns the number it took") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  run.turn();
  for (std::size_t allocations = 0; allocations < 7; ++allocations) {
    INFO(allocations << " allocations");
    std::vector<Delivery> batch;
    for (int i = 0; i < 60; ++i) {
      batch.push_back(delivery(
          std::to_string(allocations) + "_" + std::to_string(i), "wh_1"));
    }
    const auto taken = [&] {
      const AllocationLimit limit(allocations);
      return run.engine().submit(batch);
    }();
    const std::size_t count = taken.ok() ? taken.value() : 0;
    CHECK(count < 60);
    CHECK(count ==
          (allocations == 0 ? 0 : std::size_t{1} << (allocations - 1)));
    CHECK(run.engine().stats().waiting == count);
    CHECK_FALSE(batch[count].id.empty());
    const std::size_t before = run.ended();
    REQUIRE(run.until([&] { return run.ended() == before + count; }));
    CHECK(run.engine().stats().waiting == 0);
  }
}

TEST_CASE("limits: waiting retries count as waiting") {
  TestServer server;
  server.otherwise(after(0, 500));
  EngineOptions options = test_options();
  options.waiting_max = 10;
  options.retry_delays_ms = {60'000};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  run.submit(many(10, "wh_1"));
  REQUIRE(run.until_attempts(10));
  CHECK(run.engine().stats().waiting == 10);
  std::vector<Delivery> more = many(1, "wh_1", "more");
  CHECK_FALSE(run.engine().submit(more).ok());
}

TEST_CASE("limits: descriptors bound what is in flight") {
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const auto in_force = [](std::uint32_t descriptors_max) {
    EngineOptions options = test_options();
    options.in_flight_max = 1'000'000;
    options.descriptors_max = descriptors_max;
    return EngineRun(options).engine().stats().in_flight_max;
  };
  CHECK(in_force(100) == 50);
  CHECK(in_force(1) == 1);
  if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < 1'000'000) {
    CHECK(in_force(0) == limit.rlim_cur / 4);
    CHECK(in_force(4'000'000) == limit.rlim_cur / 2);
  }
}

TEST_CASE("limits: after five failures in a row, one probe at a time") {
  TestServer server;
  auto healthy = std::make_shared<std::atomic<bool>>(false);
  server.otherwise([healthy](const Request&) {
    return Reply().wait(20).answer(*healthy ? 200 : 500);
  });
  EngineOptions options = test_options();
  options.circuit_failures = 5;
  options.lane_in_flight_max = 4;
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  run.submit(many(8, "wh_1", "first"));
  REQUIRE(run.until_attempts(8));
  CHECK(server.in_flight_peak() == 4);
  const std::size_t begin = server.count();
  run.submit(many(6, "wh_1", "probe"));
  REQUIRE(run.until_attempts(14));
  const auto requests = server.requests();
  for (std::size_t i = begin + 1; i < requests.size(); ++i) {
    CHECK(requests[i].at - requests[i - 1].at >= 18ms);  // never two at a time
  }
  // After one success the lane has all of its places again.
  *healthy = true;
  run.submit(many(40, "wh_1", "healed"));
  REQUIRE(run.until_attempts(54));
  const auto healed = server.requests();
  int together = 0;
  for (std::size_t i = healed.size() - 30; i < healed.size(); ++i) {
    together += healed[i].at - healed[i - 1].at < 10ms;
  }
  CHECK(together >= 10);
}

TEST_CASE("limits: a new URL starts without the old one's failures") {
  TestServer server;
  server.on("/old", answer(500));
  server.on("/new", Handler(after(30)));
  EngineOptions options = test_options();
  options.circuit_failures = 5;
  options.lane_in_flight_max = 4;
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/old"));
  run.submit(many(8, "wh_1", "old"));
  REQUIRE(run.until_attempts(8));
  run.endpoint("wh_1", server.url("/new"));
  run.submit(many(4, "wh_1", "new"));
  REQUIRE(run.until_attempts(12));
  CHECK(server.in_flight_peak("/new") == 4);
}

TEST_CASE("limits: a bad lane does not slow the others down") {
  TestServer good;
  TestServer bad;
  bad.on("/hang", Reply().hang());
  bad.on("/drip", Reply().drip(answer_bytes(200), 100));
  bad.on("/endless",
         Reply().send("HTTP/1.1 200 OK\r\n\r\n").endless("drop", 1));
  bad.on("/fails", answer(500));
  ServerOptions how;
  how.accept = ServerOptions::Accept::kNever;
  TestServer never(how);
  how.accept = ServerOptions::Accept::kReset;
  TestServer resets(how);
  const DnsServer names;
  EngineOptions options = test_options();
  options.timeout_ms = 20'000;
  options.connect_timeout_ms = 20'000;
  options.retry_delays_ms = {5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5};
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_good", good.url("good.example", "/"));
  const auto alone = latencies(run, "wh_good", "alone", 60);

  run.endpoint("wh_hang", bad.url("/hang"));
  run.endpoint("wh_drip", bad.url("/drip"));
  run.endpoint("wh_endless", bad.url("/endless"));
  run.endpoint("wh_fails", bad.url("/fails"));
  run.endpoint("wh_never", never.url("/"));
  run.endpoint("wh_resets", resets.url("/"));
  run.endpoint("wh_names", "http://held.example/");
  for (const std::string id : {"wh_hang", "wh_drip", "wh_endless", "wh_fails",
                               "wh_never", "wh_resets", "wh_names"}) {
    run.submit(many(300, id, id));
  }
  run.run_for(100ms);
  const auto beside = latencies(run, "wh_good", "beside", 60);
  INFO("median alone " << alone[30] << " ms, beside " << beside[30]
                       << " ms; worst " << alone.back() << ", "
                       << beside.back());
  CHECK(beside[30] < alone[30] + 15 * kSlowdown);
  CHECK(beside[57] < 100 * kSlowdown);
}
