// Purpose: what comes of an attempt: the state of its delivery, when the next
// one is, and what the report says.
// Thread: one; the server has its own.
#include <algorithm>
#include <array>
#include <cstdint>
#include <ctime>
#include <string>

#include "catch.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

// One attempt and no retry, at a server that answers like this.
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

// The wait that the engine announces after one answer of 429 or the like.
std::int64_t wait_after(int status, const std::string& retry_after,
                        EngineOptions options = test_options()) {
  TestServer server;
  server.on("/", answer(status, {{"Retry-After", retry_after}}));
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  REQUIRE(attempt.next_at_ms.has_value());
  return *attempt.next_at_ms - unix_ms();
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
  CHECK(attempt.response_content_type == "text/plain; charset=x");
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

TEST_CASE("outcome: a redirect is a failure and nobody follows it") {
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

TEST_CASE("outcome: a redirect to the same place does not go in circles") {
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

TEST_CASE("outcome: 410 ends the delivery at once and says gone") {
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

TEST_CASE("outcome: anything else fails and is retried to the end") {
  for (const int status :
       {400, 401, 404, 409, 413, 422, 429, 500, 503, 599, 600, 999}) {
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

TEST_CASE("outcome: retries come when announced, within the jitter") {
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

TEST_CASE("outcome: Retry-After of 429 and 503 is obeyed, of others not") {
  EngineOptions options = test_options();
  options.retry_after_max_ms = 20'000;
  CHECK(wait_after(429, "2", options) > 1'800);
  CHECK(wait_after(429, "2", options) <= 2'400);
  CHECK(wait_after(503, http_date(unix_ms() / 1000 + 10), options) > 7'000);
  CHECK(wait_after(503, http_date(unix_ms() / 1000 + 10), options) < 12'000);
  // Capped, and parked rather than held when that is far away.
  const std::int64_t capped = wait_after(429, "99999999999", options);
  CHECK(capped > 19'000);
  CHECK(capped <= 24'500);
  for (const std::string garbage :
       {"soon", "-5", "1.5", "", "0", "Wed, 21 Oct 2015 07:28:00 GMT"}) {
    INFO(garbage);
    CHECK(wait_after(429, garbage, options) <= 11);
  }
  CHECK(wait_after(500, "10", options) <= 11);
  CHECK(wait_after(404, "10", options) <= 11);
  CHECK(wait_after(302, "10", options) <= 11);
}

TEST_CASE("outcome: Retry-After really is waited for") {
  TestServer server;
  server.on("/", std::vector<Reply>{answer(429, {{"retry-after", "1"}}),
                                    answer(200)});
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until_attempts(2));
  const auto requests = server.requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[1].at - requests[0].at >= 1s);
}

TEST_CASE("outcome: Retry-After does not make the schedule longer") {
  TestServer server;
  server.on("/", answer(429, {{"Retry-After", "1"}}));
  EngineOptions options = test_options();
  options.retry_delays_ms = {10};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  Delivery one = delivery("msg_1", "wh_1");
  one.attempts = 1;
  const Attempt attempt = run.outcome(std::move(one));
  CHECK(attempt.number == 2);
  CHECK(attempt.state == DeliveryState::kFailed);
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

TEST_CASE("outcome: without retry there is one attempt, whatever comes") {
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

TEST_CASE("outcome: a redelivery gets the whole schedule, numbers go on") {
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

TEST_CASE("outcome: not before it is due") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  Delivery later = delivery("msg_later", "wh_1");
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
  CHECK(requests[1].at - requests[0].at >= 250ms);
  CHECK(requests[1].at - requests[0].at < 600ms * kSlowdown);
}

TEST_CASE("outcome: a failure of the network is retried like a status") {
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

TEST_CASE("outcome: times are by the clock given, signatures by the system's") {
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
