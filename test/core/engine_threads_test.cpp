// Purpose: many threads call the engine while one drives it, and random actions
// disturb it. Each delivery ends exactly once.
// Thread: assertions in the test's thread only.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
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

namespace {

// Numbers of one delivery go up one by one; only the last attempt ends it.
void check_histories(const std::vector<Attempt>& attempts) {
  std::map<std::string, std::vector<Attempt>> histories;
  for (const Attempt& attempt : attempts) {
    histories[attempt.delivery_id].push_back(attempt);
  }
  for (const auto& [id, history] : histories) {
    INFO(id);
    std::uint32_t number = 0;
    for (std::size_t i = 0; i < history.size(); ++i) {
      const Attempt& attempt = history[i];
      const bool last = i + 1 == history.size();
      if (attempt.number != 0) {
        CHECK(attempt.number == ++number);
      }
      CHECK((attempt.state == DeliveryState::kPending) == !last);
      CHECK(attempt.next_at_ms.has_value() ==
            (attempt.state == DeliveryState::kPending));
      CHECK((attempt.error == ErrorClass::kNone) ==
            (attempt.state == DeliveryState::kDelivered));
      CHECK(attempt.detail.size() <= kDetailBytesMax);
    }
  }
}

Reply any_reply(std::uint32_t random) {
  switch (random % 12) {
    case 0:
      return answer(500);
    case 1:
      return Reply().reset();
    case 2:
      return Reply().close();
    case 3:
      // Seldom 429: it holds a lane for a second at least.
      return answer(random / 12 % 8 == 0 ? 429 : 503);
    case 4:
      return answer(302, {{"Location", "/"}});
    case 5:
      return Reply()
          .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
          .close();
    case 6:
      return Reply().wait(random % 30).answer(200);
    case 7:
      return answer(200).close();
    case 8:
      return Reply().send("nonsense\r\n\r\n").close();
    case 9:
      return Reply().hang();
    default:
      return answer(200);
  }
}

}  // namespace

TEST_CASE("threads: four submit while one drives") {
  TestServer server;
  EngineOptions options = test_options();
  options.lane_in_flight_max = 64;
  EngineRun run(options);
  for (int lane = 0; lane < 4; ++lane) {
    run.endpoint(std::to_string(lane), server.url("/"));
  }
  constexpr int kEach = 500;
  std::atomic<int> refused{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kEach; ++i) {
        std::vector<Delivery> one;
        one.push_back(
            delivery("msg_" + std::to_string(thread) + "_" + std::to_string(i),
                     std::to_string(i % 4)));
        if (!run.engine().submit(one).ok()) {
          ++refused;
        }
      }
    });
  }
  // Others look and change at the same time.
  threads.emplace_back([&] {
    std::uint64_t sum = 0;
    while (!done) {
      sum += run.engine().stats().attempts;
      Endpoint other;
      other.webhook_id = "other";
      static_cast<void>(run.engine().put_endpoint(std::move(other)).ok());
      static_cast<void>(run.engine().delete_endpoint("other").ok());
      std::this_thread::sleep_for(1ms);
    }
    static_cast<void>(sum);
  });
  const bool all = run.until([&] { return run.ended() == 4 * kEach; }, 20s);
  done = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  REQUIRE(all);
  CHECK(refused == 0);
  std::set<std::string> ids;
  for (const Attempt& attempt : run.attempts()) {
    CHECK(attempt.state == DeliveryState::kDelivered);
    ids.insert(attempt.delivery_id);
  }
  CHECK(ids.size() == 4 * kEach);
  CHECK(server.count() == 4 * kEach);
  const EngineStats stats = run.engine().stats();
  CHECK(stats.submitted == 4 * kEach);
  CHECK(stats.attempts == 4 * kEach);
  CHECK(stats.delivered == 4 * kEach);
  CHECK(stats.waiting == 0);
  CHECK(stats.in_flight == 0);
  CHECK(stats.finished_unread == 0);
}

TEST_CASE("threads: nothing is accepted after a concurrent stop") {
  TestServer server;
  for (int round = 0; round < 5; ++round) {
    EngineRun run;
    run.endpoint("wh_1", server.url("/"));
    std::atomic<bool> begun{false};
    std::vector<std::string> accepted[3];
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 3; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < 100'000; ++i) {
          std::vector<Delivery> one;
          const std::string id =
              std::to_string(thread) + "_" + std::to_string(i);
          one.push_back(delivery(id, "wh_1"));
          const auto taken = run.engine().submit(one);
          begun = true;
          if (taken.ok()) {
            accepted[thread].push_back(id);
          } else if (taken.error().reason == "stopped") {
            return;
          }
          std::this_thread::sleep_for(20us);
        }
      });
    }
    run.until([&] { return begun.load(); });
    run.run_for(5ms);
    const auto unfinished = run.engine().stop(20);
    for (std::thread& thread : threads) {
      thread.join();
    }
    REQUIRE(unfinished.ok());
    std::set<std::string> seen(unfinished.value().begin(),
                               unfinished.value().end());
    std::vector<Attempt> rest = run.attempts();
    while (run.engine().run_once(0, rest).ok()) {
    }
    for (const Attempt& attempt : rest) {
      seen.insert(attempt.delivery_id);
    }
    std::size_t total = 0;
    bool all_seen = true;
    for (const auto& ids : accepted) {
      total += ids.size();
      for (const std::string& id : ids) {
        all_seen = all_seen && seen.count(id) == 1;
      }
    }
    CHECK(all_seen);
    CHECK(seen.size() == total);
  }
}

TEST_CASE("threads: two engines side by side") {
  TestServer server;
  std::atomic<int> delivered{0};
  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<EngineRun>> runs;
  for (int i = 0; i < 2; ++i) {
    runs.push_back(std::make_unique<EngineRun>());
    runs.back()->endpoint("wh_1", server.url("/"));
    std::vector<Delivery> all;
    for (int n = 0; n < 200; ++n) {
      all.push_back(delivery("msg_" + std::to_string(n), "wh_1"));
    }
    runs.back()->submit(std::move(all));
  }
  for (const auto& run : runs) {
    threads.emplace_back([&delivered, &engine = run->engine()] {
      std::vector<Attempt> finished;
      for (int turn = 0; turn < 2'000 && finished.size() < 200; ++turn) {
        static_cast<void>(engine.run_once(20, finished).ok());
      }
      delivered += static_cast<int>(finished.size());
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(delivered == 400);
}

TEST_CASE("disorder: each delivery ends exactly once") {
  const std::uint32_t seed = GENERATE(1U, 2U, 3U);
  INFO("seed " << seed);
  std::mt19937 generator(seed);
  const auto random = [&generator] {
    return static_cast<std::uint32_t>(generator());
  };
  TestServer server;
  std::atomic<std::uint32_t> count{seed};
  server.otherwise([&count](const Request&) {
    return any_reply((count += 7) * 2654435761U >> 8);
  });
  EngineOptions options = test_options();
  options.timeout_ms = 150;
  options.circuit_failures = 5;
  options.retry_delays_ms = {5, 10, 15};
  options.jitter_percent = 50;
  options.destination_in_flight_max = 40;
  const DnsServer names([](const std::string& name, bool) {
    return name.starts_with("none") ? DnsAnswer{{}, 1, kNxDomain}
                                    : DnsAnswer{{"127.0.0.1"}, 1};
  });
  options.dns_servers = names.address();
  EngineRun run(options);
  const auto put = [&](int lane) {
    const std::vector<std::string> hosts = {"127.0.0.1", "a.example",
                                            "b.example", "none.example"};
    run.endpoint(
        std::to_string(lane),
        server.url(hosts[random() % hosts.size()], "/" + std::to_string(lane)),
        [&](Endpoint& endpoint) {
          endpoint.in_flight_max = 1 + random() % 12;
          endpoint.rate_per_s = random() % 3 == 0 ? 200 : 0;
        });
  };
  for (int lane = 0; lane < 30; ++lane) {
    put(lane);
  }
  std::size_t submitted = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<Delivery> batch;
    for (std::size_t i = random() % 20; i > 0; --i) {
      batch.push_back(delivery("msg_" + std::to_string(submitted++),
                               std::to_string(random() % 32)));
      batch.back().retry = random() % 8 != 0;
      batch.back().manual = random() % 8 == 0;
    }
    if (!batch.empty()) {
      run.submit(std::move(batch));
    }
    const int lane = static_cast<int>(random() % 30);
    if (round % 4 == 0) {
      put(lane);
    } else if (round % 9 == 0) {
      REQUIRE(run.engine().delete_endpoint(std::to_string(lane)).ok());
    }
    run.turn(static_cast<std::uint32_t>(random() % 8));
  }
  REQUIRE(run.until([&] { return run.ended() == submitted; }, 30s));
  run.run_for(50ms);
  CHECK(run.ended() == submitted);
  check_histories(run.attempts());
  const EngineStats stats = run.engine().stats();
  CHECK(stats.waiting == 0);
  CHECK(stats.in_flight == 0);
  CHECK(stats.submitted == submitted);
  CHECK(stats.delivered + stats.failed + stats.cancelled == submitted);
}
