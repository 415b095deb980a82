// Purpose: an engine starts, runs and stops without losing a delivery.
// Thread: the test's thread drives unless a case says otherwise. Only the
// test's thread makes assertions.
#include <atomic>
#include <chrono>
#include <limits>
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

// Reads the reports that are left after stop(), until run_once says `stopped`.
std::vector<Attempt> read_rest(Engine& engine) {
  std::vector<Attempt> rest;
  for (int i = 0; i < 1'000; ++i) {
    const Status status = engine.run_once(0, rest);
    if (!status.ok()) {
      CHECK(status.error().reason == "stopped");
      return rest;
    }
  }
  CHECK(false);
  return rest;
}

bool ended(const Attempt& attempt) {
  return attempt.state != DeliveryState::kPending &&
         attempt.state != DeliveryState::kParked;
}

}  // namespace

TEST_CASE("lifecycle: invalid options are named") {
  struct Case {
    const char* name;
    void (*change)(EngineOptions&);
  };
  const std::vector<Case> cases = {
      {"retry_delays_ms",
       [](EngineOptions& o) { o.retry_delays_ms.assign(13, 10); }},
      {"jitter_percent", [](EngineOptions& o) { o.jitter_percent = 101; }},
      {"timeout_ms", [](EngineOptions& o) { o.timeout_ms = 0; }},
      {"connect_timeout_ms",
       [](EngineOptions& o) { o.connect_timeout_ms = 0; }},
      {"lane_in_flight_max",
       [](EngineOptions& o) { o.lane_in_flight_max = 0; }},
      {"lane_rate_per_s", [](EngineOptions& o) { o.lane_rate_per_s = 0; }},
      {"destination_in_flight_max",
       [](EngineOptions& o) { o.destination_in_flight_max = 0; }},
      {"destination_rate_per_s",
       [](EngineOptions& o) { o.destination_rate_per_s = 0; }},
      {"in_flight_max", [](EngineOptions& o) { o.in_flight_max = 0; }},
      {"waiting_max", [](EngineOptions& o) { o.waiting_max = 0; }},
      {"body_bytes_max", [](EngineOptions& o) { o.body_bytes_max = 0; }},
      {"response_header_bytes_max",
       [](EngineOptions& o) { o.response_header_bytes_max = 0; }},
      {"multi_handles", [](EngineOptions& o) { o.multi_handles = 0; }},
      {"multi_handles", [](EngineOptions& o) { o.multi_handles = 65; }},
      {"user_agent", [](EngineOptions& o) { o.user_agent = "a\r\nX: y"; }},
  };
  for (const Case& one : cases) {
    INFO(one.name);
    EngineOptions options = test_options();
    one.change(options);
    const auto engine = Engine::create(options);
    REQUIRE_FALSE(engine.ok());
    CHECK(engine.error().reason == "invalid_option");
    CHECK(engine.error().detail == one.name);
  }
}

TEST_CASE("lifecycle: an idle run_once lasts max_wait_ms") {
  EngineRun run;
  std::vector<Attempt> finished;
  auto begin = Clock::now();
  REQUIRE(run.engine().run_once(80, finished).ok());
  CHECK(Clock::now() - begin >= 75ms);
  CHECK(Clock::now() - begin < 200ms * kSlowdown);
  begin = Clock::now();
  REQUIRE(run.engine().run_once(0, finished).ok());
  CHECK(Clock::now() - begin < 50ms * kSlowdown);
  CHECK(finished.empty());
}

TEST_CASE("lifecycle: run_once returns early with a report") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1"));
  std::vector<Attempt> finished;
  const auto begin = Clock::now();
  REQUIRE(run.engine().run_once(1'000, finished).ok());
  CHECK(finished.size() == 1);
  CHECK(Clock::now() - begin < 300ms * kSlowdown);
}

TEST_CASE("lifecycle: a submission wakes a sleeping run_once") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  run.turn(0);
  std::atomic<bool> asleep{false};
  std::vector<Attempt> finished;
  std::thread driver([&] {
    asleep = true;
    static_cast<void>(run.engine().run_once(1'000, finished).ok());
  });
  REQUIRE(eventually([&] { return asleep.load(); }));
  std::this_thread::sleep_for(50ms);
  const auto begin = Clock::now();
  std::vector<Delivery> one;
  one.push_back(delivery("msg_1", "wh_1"));
  const bool taken = run.engine().submit(one).ok();
  driver.join();
  CHECK(taken);
  CHECK(finished.size() == 1);
  CHECK(Clock::now() - begin < 200ms * kSlowdown);
}

TEST_CASE("lifecycle: a slow slice names its webhook") {
  TestServer server;
  auto wait = std::make_shared<std::atomic<bool>>(false);
  auto work = std::make_shared<std::atomic<bool>>(false);
  EngineOptions options = test_options();
  options.now_ms = [wait, work] {
    if (wait->exchange(false)) {
      std::this_thread::sleep_for(300ms);
    }
    if (work->exchange(false)) {
      burn_cpu(1s);
    }
    return unix_ms();
  };
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  const auto start_late = [&](const char* id, std::atomic<bool>& busy) {
    Delivery later = delivery(id, "wh_1");
    later.due_at_ms = unix_ms() + 100;
    run.submit(std::move(later));
    run.turn(0);
    busy = true;  // as it is started
    REQUIRE(run.until([&] { return run.attempts(id).size() == 1; }));
  };
  start_late("msg_1", *wait);
  CHECK(run.engine().slow_slices().empty());
  start_late("msg_2", *work);
  const std::vector<SlowSlice> slices = run.engine().slow_slices();
  REQUIRE(slices.size() == 1);
  CHECK(slices[0].webhook_id == "wh_1");
  CHECK(slices[0].took_ms >= 250);
  CHECK(run.engine().slow_slices().empty());
  CHECK(run.engine().stats().slow_slices == 1);
}

TEST_CASE("lifecycle: a delivery due at the largest time waits") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery never = delivery("msg_1", "wh_1");
  never.due_at_ms = std::numeric_limits<std::int64_t>::max();
  run.submit(std::move(never));
  run.run_for(50ms);
  CHECK(server.count() == 0);
  CHECK(run.engine().stats().waiting == 1);
}

TEST_CASE("lifecycle: one driver at a time") {
  EngineRun run;
  std::atomic<bool> driving{false};
  std::vector<Attempt> finished;
  std::thread driver([&] {
    driving = true;
    static_cast<void>(run.engine().run_once(800, finished).ok());
  });
  REQUIRE(eventually([&] { return driving.load(); }));
  std::this_thread::sleep_for(50ms);
  std::vector<Attempt> mine;
  const Status second = run.engine().run_once(0, mine);
  const auto stop = run.engine().stop(0);
  const std::string second_reason(second.ok() ? "" : second.error().reason);
  const std::string stop_reason(stop.ok() ? "" : stop.error().reason);
  driver.join();
  CHECK(second_reason == "already_driven");
  CHECK(stop_reason == "already_driven");
  CHECK(run.engine().run_once(0, mine).ok());
}

TEST_CASE("lifecycle: stop returns the unfinished ids") {
  TestServer server;
  server.on("/hang", Reply().hang());
  server.on("/fails", answer(500));
  EngineOptions options = test_options();
  options.retry_delays_ms = {60'000};
  const DnsServer names;
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_hang", server.url("/hang"));
  run.endpoint("wh_fails", server.url("/fails"));
  run.endpoint("wh_names", "http://held.example/");
  run.endpoint("wh_limited", server.url("/limited"),
               [](Endpoint& endpoint) { endpoint.rate_per_s = 1; });
  for (int i = 0; i < 20; ++i) {
    run.submit(delivery("msg_hang" + std::to_string(i), "wh_hang"));
    run.submit(delivery("msg_name" + std::to_string(i), "wh_names"));
  }
  run.submit(delivery("msg_fails", "wh_fails"));
  run.submit(delivery("msg_goes", "wh_limited"));
  run.submit(delivery("msg_waits", "wh_limited"));
  Delivery later = delivery("msg_later", "wh_limited");
  later.due_at_ms = unix_ms() + 50'000;
  run.submit(std::move(later));
  REQUIRE(run.until_attempts(2));
  run.submit(delivery("msg_unseen", "wh_limited"));  // not yet taken in
  const auto begin = Clock::now();
  const auto unfinished = run.engine().stop(0);
  CHECK(Clock::now() - begin < 300ms * kSlowdown);
  REQUIRE(unfinished.ok());
  std::set<std::string> ids(unfinished.value().begin(),
                            unfinished.value().end());
  CHECK(ids.size() == unfinished.value().size());
  CHECK(ids.size() == 44);
  CHECK(ids.count("msg_goes") == 0);
  for (const char* id : {"msg_fails", "msg_waits", "msg_later", "msg_unseen",
                         "msg_hang0", "msg_hang19", "msg_name7"}) {
    INFO(id);
    CHECK(ids.count(id) == 1);
  }
  const auto again = run.engine().stop(0);
  REQUIRE(again.ok());
  CHECK(again.value().size() == 44);
  CHECK(read_rest(run.engine()).empty());
  CHECK(run.engine().stats().stopped);
  CHECK(run.engine().stats().in_flight == 0);
  CHECK(eventually([&] { return server.connections_open() == 0; }));
}

TEST_CASE("lifecycle: nothing is accepted after stop") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  REQUIRE(run.engine().stop(0).ok());
  std::vector<Delivery> one;
  one.push_back(delivery("msg_1", "wh_1"));
  const auto submitted = run.engine().submit(one);
  REQUIRE_FALSE(submitted.ok());
  CHECK(submitted.error().reason == "stopped");
  CHECK(one[0].id == "msg_1");
  CHECK_FALSE(run.engine().put_endpoint(Endpoint{}).ok());
  CHECK_FALSE(run.engine().delete_endpoint("wh_1").ok());
  std::vector<Attempt> finished;
  CHECK_FALSE(run.engine().run_once(10, finished).ok());
  CHECK(server.count() == 0);
}

TEST_CASE("lifecycle: draining only finishes requests in flight") {
  TestServer server;
  server.otherwise(
      [](const Request&) { return Reply().wait(150).answer(200); });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 3; });
  for (int i = 0; i < 10; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until([&] { return server.count() == 3; }));
  const auto begin = Clock::now();
  const auto unfinished = run.engine().stop(5'000);
  CHECK(Clock::now() - begin < 1s * kSlowdown);  // not the whole time
  REQUIRE(unfinished.ok());
  CHECK(unfinished.value().size() == 7);
  const auto rest = read_rest(run.engine());
  CHECK(rest.size() == 3);
  for (const Attempt& attempt : rest) {
    CHECK(attempt.state == DeliveryState::kDelivered);
    for (const std::string& id : unfinished.value()) {
      CHECK(attempt.delivery_id != id);
    }
  }
  CHECK(server.count() == 3);
}

TEST_CASE("lifecycle: a drain ends despite silent receivers") {
  TestServer server;
  server.on("/hang", Reply().hang());
  server.on("/fails", Reply().wait(50).answer(500));
  EngineRun run;
  run.endpoint("wh_hang", server.url("/hang"));
  run.endpoint("wh_fails", server.url("/fails"));
  run.submit(delivery("msg_hang", "wh_hang"));
  run.submit(delivery("msg_fails", "wh_fails"));
  REQUIRE(run.until([&] { return server.count() == 2; }));
  const auto begin = Clock::now();
  const auto unfinished = run.engine().stop(300);
  CHECK(Clock::now() - begin >= 290ms);
  CHECK(Clock::now() - begin < 600ms * kSlowdown);
  REQUIRE(unfinished.ok());
  // The failed one would have been tried again: its attempt is on record, and
  // the delivery is given back.
  CHECK(std::set<std::string>(unfinished.value().begin(),
                              unfinished.value().end()) ==
        std::set<std::string>{"msg_hang", "msg_fails"});
  const auto rest = read_rest(run.engine());
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].delivery_id == "msg_fails");
  CHECK(rest[0].state == DeliveryState::kPending);
}

TEST_CASE("lifecycle: a stop under load accounts for all deliveries") {
  TestServer server;
  server.otherwise([](const Request& request) {
    switch (request.body.size() % 4) {
      case 0:
        return answer(200);
      case 1:
        return answer(500);
      case 2:
        return Reply().wait(20).answer(200);
      default:
        return Reply().reset();
    }
  });
  EngineRun run;
  for (int lane = 0; lane < 10; ++lane) {
    run.endpoint(std::to_string(lane), server.url("/"));
  }
  std::vector<Delivery> all;
  for (int i = 0; i < 3'000; ++i) {
    all.push_back(delivery("msg_" + std::to_string(i), std::to_string(i % 10),
                           std::string(static_cast<std::size_t>(i % 7), 'b')));
  }
  run.submit(std::move(all));
  REQUIRE(run.until_attempts(500));
  const auto unfinished = run.engine().stop(50);
  REQUIRE(unfinished.ok());
  std::vector<Attempt> attempts = run.attempts();
  for (Attempt& attempt : read_rest(run.engine())) {
    attempts.push_back(std::move(attempt));
  }
  std::set<std::string> seen;
  for (const Attempt& attempt : attempts) {
    if (ended(attempt)) {
      INFO(attempt.delivery_id);
      CHECK(seen.insert(attempt.delivery_id).second);
    }
  }
  CHECK(seen.size() > 100);
  for (const std::string& id : unfinished.value()) {
    INFO(id);
    CHECK(seen.insert(id).second);
  }
  CHECK(seen.size() == 3'000);
}

TEST_CASE("lifecycle: can be destroyed with everything in flight") {
  TestServer server;
  server.on("/hang", Reply().hang());
  EngineRun run;
  run.endpoint("wh_1", server.url("/hang"));
  for (int i = 0; i < 20; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  run.run_for(50ms);
  CHECK(run.engine().stats().in_flight == 8);
}

TEST_CASE("lifecycle: request_stop ends run_once from another thread") {
  TestServer server;
  server.on("/hang", Reply().hang());
  EngineRun run;
  run.endpoint("wh_1", server.url("/hang"));
  run.submit(delivery("msg_1", "wh_1"));
  run.run_for(30ms);
  std::thread stopper([&] {
    std::this_thread::sleep_for(50ms);
    run.engine().request_stop();
  });
  std::vector<Attempt> finished;
  const auto begin = Clock::now();
  static_cast<void>(run.engine().run_once(1'000, finished).ok());
  const auto took = Clock::now() - begin;
  stopper.join();
  CHECK(took < 400ms * kSlowdown);
  const auto again = Clock::now();
  CHECK_FALSE(run.engine().run_once(1'000, finished).ok());
  const auto unfinished = run.engine().stop(5'000);
  CHECK(Clock::now() - again < 400ms * kSlowdown);
  REQUIRE(unfinished.ok());
  CHECK(unfinished.value() == std::vector<std::string>{"msg_1"});
}
