// Purpose: the result of an attempt: the state of its delivery, the time of the
// next attempt, and the report.
// Thread: one; the server has its own.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "catch.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

// One attempt without retry at a server with this answer.
Attempt answered(Reply reply) {
  TestServer server;
  server.on("/", std::move(reply));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery one = delivery("msg_1", "wh_1");
  one.retry = false;
  return run.outcome(std::move(one));
}

std::string http_date(std::int64_t unix_seconds) {
  const std::time_t time = unix_seconds;
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return text.data();
}

// The wait that the engine announces after this answer, for a delivery of this
// age.
std::int64_t wait_after(int status, const Headers& headers,
                        const EngineOptions& options, std::int64_t age_ms = 0) {
  TestServer server;
  server.on("/", answer(status, headers));
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  Delivery one = delivery("msg_1", "wh_1");
  one.accepted_at_ms = unix_ms() - age_ms;
  const Attempt attempt = run.outcome(std::move(one));
  REQUIRE(attempt.next_at_ms.has_value());
  return *attempt.next_at_ms - unix_ms();
}

// Answers 429 from the (most + 1)-th request of a second on.
Handler limited_to(std::size_t most) {
  return [most, taken = std::vector<std::chrono::steady_clock::time_point>()](
             const Request& request) mutable {
    std::erase_if(taken, [&](auto at) { return request.at - at > 1s; });
    if (taken.size() == most) {
      return answer(429, {{"Retry-After", "1"}});
    }
    taken.push_back(request.at);
    return answer(200);
  };
}

}  // namespace

TEST_CASE("outcome: every 2xx is delivered") {
  for (const int status : {200, 201, 202, 204, 205, 226, 299}) {
    INFO(status);
    const Attempt attempt = answered(answer(status));
    CHECK(attempt.state == DeliveryState::kDelivered);
    CHECK(attempt.error == ErrorClass::kNone);
    CHECK(attempt.status == status);
    CHECK(attempt.number == 1);
    CHECK_FALSE(attempt.next_at_ms.has_value());
    CHECK_FALSE(attempt.gone);
  }
}

TEST_CASE("outcome: the report of an attempt") {
  TestServer server;
  server.on("/",
            Reply().wait(30).answer(
                200, {{"Content-Type", "text/plain; charset=x"}}, "thanks"));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  const std::int64_t before = unix_ms();
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(attempt.delivery_id == "msg_1");
  CHECK(attempt.webhook_id == "wh_1");
  CHECK(attempt.started_at_ms >= before);
  CHECK(attempt.started_at_ms <= unix_ms());
  CHECK(attempt.remote_ip == "127.0.0.1");
  CHECK(attempt.response_headers.find("text/plain; charset=x\n") !=
        std::string::npos);
  CHECK(attempt.retry);
  CHECK(attempt.response_body == "thanks");
  CHECK_FALSE(attempt.response_truncated);
  CHECK(attempt.detail.empty());
  CHECK_FALSE(attempt.dns_us.has_value());  // a literal
  CHECK_FALSE(attempt.tls_us.has_value());  // plain HTTP
  REQUIRE(attempt.connect_us.has_value());
  REQUIRE(attempt.first_byte_us.has_value());
  REQUIRE(attempt.total_us.has_value());
  CHECK(*attempt.connect_us <= *attempt.first_byte_us);
  CHECK(*attempt.first_byte_us >= 30'000);
  CHECK(*attempt.first_byte_us <= *attempt.total_us + 2'000);
  CHECK(*attempt.total_us < 1'000'000U * static_cast<unsigned>(kSlowdown));
}

TEST_CASE("outcome: a redirect is a failure and is not followed") {
  Canary canary;
  const std::string elsewhere =
      "http://127.0.0.1:" + std::to_string(canary.port()) + "/";
  for (const int status : {300, 301, 302, 303, 304, 307, 308, 399}) {
    INFO(status);
    TestServer server;
    server.on("/", answer(status, {{"Location", elsewhere}}));
    EngineRun run;
    run.endpoint("wh_1", server.url("/"));
    run.submit(delivery("msg_1", "wh_1"));
    REQUIRE(run.until([&] { return run.ended() == 1; }));
    REQUIRE(run.attempts().size() == 4);  // retried like any failure
    for (const Attempt& attempt : run.attempts()) {
      CHECK(attempt.error == ErrorClass::kRedirect);
      CHECK(attempt.status == status);
    }
    CHECK(run.attempts().back().state == DeliveryState::kFailed);
    CHECK(server.count() == 4);
  }
  CHECK(canary.touched() == 0);
}

TEST_CASE("outcome: a redirect to the same URL does not loop") {
  TestServer server;
  server.otherwise([](const Request&) {
    return answer(307, {{"Location", "/again"}}, "moved");
  });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery one = delivery("msg_1", "wh_1");
  one.retry = false;
  CHECK(run.outcome(std::move(one)).state == DeliveryState::kFailed);
  CHECK(server.count() == 1);
}

TEST_CASE("outcome: 410 ends the delivery at once as gone") {
  TestServer server;
  server.on("/", answer(410));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(attempt.state == DeliveryState::kFailed);
  CHECK(attempt.error == ErrorClass::kGone);
  CHECK(attempt.gone);
  CHECK_FALSE(attempt.next_at_ms.has_value());
  run.run_for(100ms);
  CHECK(server.count() == 1);
}

TEST_CASE("outcome: any other status is retried until the schedule ends") {
  for (const int status :
       {400, 401, 404, 409, 413, 422, 500, 503, 599, 600, 999}) {
    INFO(status);
    TestServer server;
    server.on("/", answer(status));
    EngineRun run;
    run.endpoint("wh_1", server.url("/"));
    run.submit(delivery("msg_1", "wh_1"));
    REQUIRE(run.until([&] { return run.ended() == 1; }));
    const auto attempts = run.attempts("msg_1");
    REQUIRE(attempts.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(attempts[i].number == i + 1);
      CHECK(attempts[i].status == status);
      CHECK(attempts[i].error == ErrorClass::kHttpStatus);
      CHECK_FALSE(attempts[i].gone);
      const bool last = i == 3;
      CHECK(attempts[i].state ==
            (last ? DeliveryState::kFailed : DeliveryState::kPending));
      CHECK(attempts[i].next_at_ms.has_value() == !last);
    }
    run.run_for(50ms);
    CHECK(server.count() == 4);
  }
}

TEST_CASE("outcome: retries run at the announced time") {
  TestServer server;
  server.on("/", answer(500));
  EngineOptions options = test_options();
  options.retry_delays_ms = {100, 200, 300};
  options.jitter_percent = 20;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 20; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until([&] { return run.ended() == 20; }));
  std::int64_t least = 1'000'000;
  std::int64_t most = 0;
  for (int i = 0; i < 20; ++i) {
    const auto attempts = run.attempts("msg_" + std::to_string(i));
    REQUIRE(attempts.size() == 4);
    for (std::size_t n = 0; n < 3; ++n) {
      const std::int64_t step = options.retry_delays_ms[n];
      const std::int64_t end =
          attempts[n].started_at_ms +
          static_cast<std::int64_t>(attempts[n].total_us.value() / 1000);
      const std::int64_t announced = attempts[n].next_at_ms.value() - end;
      CHECK(announced >= step - step / 5 - 2);
      CHECK(announced <= step + step / 5 + 50 * kSlowdown);
      const std::int64_t late =
          attempts[n + 1].started_at_ms - attempts[n].next_at_ms.value();
      CHECK(late >= -2);
      CHECK(late < 200 * kSlowdown);
      least = std::min(least, announced * 100 / step);
      most = std::max(most, announced * 100 / step);
    }
  }
  // Twenty deliveries that failed together do not come back together.
  CHECK(most - least >= 10);
}

TEST_CASE("outcome: Retry-After only lengthens a wait") {
  constexpr std::int64_t kOld = std::int64_t{2} * 24 * 3'600'000;
  EngineOptions options = test_options();
  options.retry_delays_ms = {5'000};
  options.retry_after_max_ms = 20'000;
  const std::string date = http_date(unix_ms() / 1000 + 15);
  struct Row {
    int status;
    std::string retry_after;
    std::int64_t age_ms;
    std::int64_t low;
    std::int64_t high;
  };
  for (const Row& row :
       std::vector<Row>{// The lane is held; the schedule is for failures.
                        {429, "2", 0, 1'800, 2'500},
                        {503, date, 0, 12'000, 18'500},
                        {429, "99999999999", 0, 19'000, 25'500},
                        {429, "soon", 0, 900, 1'500},
                        {429, "0", 0, 900, 1'500},
                        // So they do not go on forever.
                        {429, "2", kOld, 4'800, 5'100},
                        {429, "10", kOld, 9'800, 12'500},
                        {503, "10", kOld, 9'800, 12'500},
                        // Any other answer is an ordinary failure.
                        {503, "", 0, 4'800, 5'100},
                        {500, "10", 0, 4'800, 5'100},
                        {404, "10", 0, 4'800, 5'100},
                        {302, "10", 0, 4'800, 5'100}}) {
    INFO(row.status << " " << row.retry_after << ", age " << row.age_ms);
    const std::int64_t wait = wait_after(
        row.status, {{"retry-after", row.retry_after}}, options, row.age_ms);
    INFO(wait);
    CHECK(wait >= row.low);
    CHECK(wait <= row.high);
  }
}

TEST_CASE("outcome: after 429 all arrive, at a lower rate") {
  TestServer server;
  server.otherwise(limited_to(5));
  server.on("/other", answer(200));
  EngineOptions options = test_options();
  options.retry_delays_ms = {};  // such an answer costs no retry
  options.lane_rate_per_s = 50;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  run.endpoint("wh_2", server.url("/other"));
  for (int i = 0; i < 25; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until([&] { return server.count("/") >= 6; }));
  // Another lane is not affected.
  CHECK(run.outcome(delivery("msg_other", "wh_2")).state ==
        DeliveryState::kDelivered);
  REQUIRE(run.until([&] { return run.ended() == 26; }, 15s));
  std::size_t delivered = 0;
  for (const Attempt& attempt : run.attempts()) {
    delivered += attempt.state == DeliveryState::kDelivered ? 1U : 0U;
    CHECK((attempt.status == 429) == (attempt.schedule_from == attempt.number));
  }
  CHECK(delivered == 26);
  CHECK(server.count("/") < 25 + 20);
}

TEST_CASE("outcome: a long Retry-After parks waiting deliveries") {
  TestServer server;
  server.on("/", answer(503, {{"Retry-After", "3600"}}));
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 1; });
  std::vector<Delivery> many;
  for (int i = 0; i < 300; ++i) {
    many.push_back(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  run.submit(std::move(many));
  REQUIRE(run.until_attempts(1));
  CHECK(run.attempts()[0].state == DeliveryState::kParked);
  CHECK(run.attempts()[0].schedule_from == 1);
  // The lane is full enough for as long as it is held.
  run.submit(delivery("msg_late", "wh_1"));
  REQUIRE(run.until([&] { return !run.attempts("msg_late").empty(); }));
  const Attempt late = run.attempts("msg_late").front();
  CHECK(late.state == DeliveryState::kParked);
  CHECK(late.number == 0);
  CHECK(late.next_at_ms.value() - unix_ms() > 3'590'000);
  run.run_for(50ms);
  CHECK(server.count() == 1);
}

TEST_CASE("outcome: a long wait leaves the engine") {
  TestServer server;
  server.on("/", answer(500));
  EngineOptions options = test_options();
  options.retry_delays_ms = {20, 5'000, 20};
  options.park_after_ms = 1'000;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until_attempts(2));
  const auto attempts = run.attempts("msg_1");
  CHECK(attempts[0].state == DeliveryState::kPending);
  CHECK(attempts[1].state == DeliveryState::kParked);
  CHECK(attempts[1].next_at_ms.value() - unix_ms() > 4'000);
  CHECK(run.engine().stats().waiting == 0);
  CHECK(run.engine().stats().parked == 1);
  // The same delivery may come back, and goes on where it was.
  Delivery again = delivery("msg_1", "wh_1");
  again.attempts = 2;
  run.submit(std::move(again));
  REQUIRE(run.until([&] { return run.attempts("msg_1").size() == 4; }));
  CHECK(run.attempts("msg_1")[2].number == 3);
  CHECK(run.attempts("msg_1")[3].number == 4);
  CHECK(run.attempts("msg_1")[3].state == DeliveryState::kFailed);
}

TEST_CASE("outcome: without retry there is exactly one attempt") {
  TestServer server;
  server.on("/", answer(503, {{"Retry-After", "1"}}));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery one = delivery("msg_1", "wh_1");
  one.retry = false;
  const Attempt attempt = run.outcome(std::move(one));
  CHECK(attempt.state == DeliveryState::kFailed);
  CHECK_FALSE(attempt.next_at_ms.has_value());
  run.run_for(80ms);
  CHECK(server.count() == 1);
}

TEST_CASE("outcome: a redelivery restarts the schedule, not the numbers") {
  TestServer server;
  server.on("/", answer(500));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery again = delivery("msg_1", "wh_1");
  again.attempts = 7;
  again.schedule_from = 7;
  again.manual = true;
  run.submit(std::move(again));
  REQUIRE(run.until([&] { return run.ended() == 1; }));
  const auto attempts = run.attempts("msg_1");
  REQUIRE(attempts.size() == 4);
  CHECK(attempts.front().number == 8);
  CHECK(attempts.back().number == 11);
}

TEST_CASE("outcome: nothing is sent before it is due") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery later = delivery("msg_later", "wh_1");
  const auto begin = std::chrono::steady_clock::now();
  later.due_at_ms = unix_ms() + 300;
  Delivery past = delivery("msg_past", "wh_1");
  past.due_at_ms = unix_ms() - 100'000;
  run.submit(std::move(later));
  run.submit(std::move(past));
  REQUIRE(run.until_attempts(2));
  const auto requests = server.requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[0].header("webhook-id") == "msg_past");
  CHECK(requests[1].header("webhook-id") == "msg_later");
  CHECK(requests[1].at - begin >= 290ms);
  CHECK(requests[1].at - begin < 600ms * kSlowdown);
}

TEST_CASE("outcome: a network failure is retried like a status") {
  const ClosedPort closed;
  EngineRun run;
  run.endpoint("wh_1", "http://127.0.0.1:" + std::to_string(closed.port()));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return run.ended() == 1; }));
  const auto attempts = run.attempts("msg_1");
  REQUIRE(attempts.size() == 4);
  for (const Attempt& attempt : attempts) {
    CHECK(attempt.error == ErrorClass::kConnectionRefused);
    CHECK(attempt.status == 0);
    CHECK_FALSE(attempt.detail.empty());
    CHECK_FALSE(attempt.first_byte_us.has_value());
  }
}

TEST_CASE("outcome: times use the given clock, signatures the system's") {
  TestServer server;
  server.on("/", answer(500));
  EngineOptions options = test_options();
  options.retry_delays_ms = {60'000};
  options.jitter_percent = 0;
  options.park_after_ms = 1'000;
  options.now_ms = [] { return std::int64_t{5'000'000}; };
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  Delivery later = delivery("msg_1", "wh_1");
  later.due_at_ms = 5'000'200;
  const std::int64_t before = unix_ms();
  const Attempt attempt = run.outcome(std::move(later));
  CHECK(unix_ms() - before >= 200);
  CHECK(attempt.started_at_ms == 5'000'000);
  CHECK(attempt.state == DeliveryState::kParked);
  CHECK(attempt.next_at_ms == 5'060'000);
  const std::string signed_at =
      server.requests().at(0).header("webhook-timestamp");
  CHECK(std::stoll(signed_at) >= before / 1000);
}
