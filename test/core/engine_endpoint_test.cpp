// Purpose: endpoints that are changed or deleted while deliveries wait, and
// deliveries that are submitted twice.
// Thread: one; the servers have their own.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
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

EngineOptions retry_after_ms(std::vector<std::uint32_t> delays) {
  EngineOptions options = test_options();
  options.retry_delays_ms = std::move(delays);
  return options;
}

}  // namespace

TEST_CASE("endpoint: a change applies to waiting deliveries") {
  TestServer server;
  server.on("/old", answer(500));
  EngineRun run(retry_after_ms({150}));
  run.endpoint("wh_1", server.url("/old"));
  run.submit(delivery("msg_1", "wh_1", "body"));
  REQUIRE(run.until_attempts(1));
  run.endpoint("wh_1", server.url("/new"), [](Endpoint& endpoint) {
    endpoint.keys.clear();
    endpoint.keys.push_back(
        {SigningKey::parse(kSecretB).value(), std::nullopt});
    endpoint.headers = {{"X-New", "yes"}};
  });
  REQUIRE(run.until_attempts(2));
  CHECK(run.attempts()[1].state == DeliveryState::kDelivered);
  CHECK(run.attempts()[1].number == 2);
  REQUIRE(server.count("/new") == 1);
  CHECK(server.count("/old") == 1);
  const Request request = server.requests("/new").front();
  CHECK(request.header("x-new") == "yes");
  CHECK(request.header("webhook-signature") ==
        hmac_signature(kSecretB, "msg_1", request.header("webhook-timestamp"),
                       "body"));
}

TEST_CASE("endpoint: a change does not touch requests in flight") {
  TestServer server;
  server.on("/old", Reply().wait(150).answer(500));
  EngineRun run(retry_after_ms({20}));
  run.endpoint("wh_1", server.url("/old"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return server.count("/old") == 1; }));
  for (int i = 0; i < 3; ++i) {
    run.endpoint("wh_1", server.url("/new"));
  }
  REQUIRE(run.until_attempts(2));
  CHECK(run.attempts()[0].status == 500);
  CHECK(run.attempts()[1].state == DeliveryState::kDelivered);
  CHECK(server.count("/old") == 1);
  CHECK(server.count("/new") == 1);
  CHECK(run.engine().stats().lanes == 1);
}

TEST_CASE("endpoint: a change while the old name is looked up") {
  TestServer server;
  DnsServer names;
  EngineOptions options = retry_after_ms({});
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_1", server.url("held.example", "/old"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return names.held() > 0; }));
  run.endpoint("wh_1", server.url("other.example", "/new"));
  run.turn(0);
  names.release();
  REQUIRE(run.until_attempts(1));
  CHECK(run.attempts()[0].state == DeliveryState::kDelivered);
  CHECK(server.count("/old") + server.count("/new") == 1);
  // All places of the lane are free again.
  for (int i = 0; i < 20; ++i) {
    CHECK(
        run.outcome(delivery("msg_more_" + std::to_string(i), "wh_1")).state ==
        DeliveryState::kDelivered);
  }
  CHECK(server.count("/new") >= 20);
}

TEST_CASE("endpoint: new limits apply at once") {
  TestServer server;
  server.otherwise([](const Request&) { return Reply().wait(30).answer(200); });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 1; });
  for (int i = 0; i < 30; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until_attempts(2));
  CHECK(server.in_flight_peak() == 1);
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 6; });
  REQUIRE(run.until_attempts(30));
  CHECK(server.in_flight_peak() == 6);
}

TEST_CASE("endpoint: deleting cancels each waiting delivery once") {
  TestServer server;
  server.on("/fails", answer(500));
  EngineRun run(retry_after_ms({60'000}));
  run.endpoint("wh_1", server.url("/fails"), [](Endpoint& endpoint) {
    endpoint.rate_per_s = 1;  // the first goes, the others wait in line
  });
  for (int i = 0; i < 5; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  Delivery later = delivery("msg_later", "wh_1");
  later.due_at_ms = unix_ms() + 50'000;
  run.submit(std::move(later));
  REQUIRE(run.until_attempts(1));
  REQUIRE(run.engine().delete_endpoint("wh_1").ok());
  REQUIRE(run.until([&] { return run.ended() == 6; }));
  run.run_for(50ms);
  CHECK(run.attempts().size() == 7);
  for (std::size_t i = 1; i < run.attempts().size(); ++i) {
    const Attempt& attempt = run.attempts()[i];
    CHECK(attempt.state == DeliveryState::kCancelled);
    CHECK(attempt.error == ErrorClass::kCancelled);
    CHECK(attempt.number == 0);
    CHECK(attempt.webhook_id == "wh_1");
    CHECK_FALSE(attempt.next_at_ms.has_value());
  }
  CHECK(server.count() == 1);
  CHECK(run.engine().stats().waiting == 0);
  CHECK(run.engine().stats().lanes == 0);
  CHECK(run.engine().stats().cancelled == 6);
}

TEST_CASE("endpoint: a long queue is filled and cancelled in steps") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_long", server.url("/"),
               [](Endpoint& endpoint) { endpoint.rate_per_s = 1'000; });
  run.endpoint("wh_1", server.url("/"));
  std::vector<Delivery> line;
  for (int i = 0; i < 20'000; ++i) {
    line.push_back(delivery("msg_" + std::to_string(i), "wh_long"));
    line.back().due_at_ms = unix_ms() + 50'000;
  }
  run.submit(std::move(line));
  run.turn(0);
  REQUIRE(run.engine().delete_endpoint("wh_long").ok());
  // Put again while the old line is still being cancelled: it is a new one,
  // and takes a delivery of the old line's as its own.
  run.endpoint("wh_long", server.url("/again"));
  Delivery again = delivery("msg_19999", "wh_long");
  again.manual = true;
  run.submit(std::move(again));
  run.submit(delivery("msg_other", "wh_1"));
  std::size_t most = 0;
  REQUIRE(run.until([&] {
    const std::size_t before = run.attempts().size();
    run.turn(0);
    most = std::max(most, run.attempts().size() - before);
    return run.ended() == 20'002;
  }));
  CHECK(most <= 3'000);
  CHECK(run.engine().stats().cancelled == 20'000);
  CHECK(server.count("/again") == 1);
  CHECK(run.engine().stats().lanes == 2);
  CHECK(run.engine().stats().waiting == 0);
}

TEST_CASE("endpoint: deleting lets requests in flight end") {
  const int status = GENERATE(200, 500);
  TestServer server;
  server.on("/", Reply().wait(150).answer(status));
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return server.count() == 1; }));
  REQUIRE(run.engine().delete_endpoint("wh_1").ok());
  REQUIRE(run.until_attempts(1));
  CHECK(run.attempts()[0].status == status);
  CHECK(run.attempts()[0].number == 1);
  CHECK(run.attempts()[0].state == (status == 200 ? DeliveryState::kDelivered
                                                  : DeliveryState::kCancelled));
  run.run_for(100ms);
  CHECK(run.attempts().size() == 1);
  CHECK(server.count() == 1);
}

TEST_CASE("endpoint: deleting while a name is looked up sends nothing") {
  Canary canary;
  DnsServer names;
  EngineOptions options = test_options();
  options.dns_servers = names.address();
  EngineRun run(options);
  run.endpoint("wh_1", "http://held.example:" + std::to_string(canary.port()));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return names.held() > 0; }));
  REQUIRE(run.engine().delete_endpoint("wh_1").ok());
  run.turn(0);
  names.release();
  REQUIRE(run.until_attempts(1));
  CHECK(run.attempts()[0].state == DeliveryState::kCancelled);
  CHECK(canary.touched() == 0);
}

TEST_CASE("endpoint: a deleted one that is put again is new") {
  TestServer server;
  server.on("/old", Reply().wait(100).answer(500));
  EngineRun run;
  run.endpoint("wh_1", server.url("/old"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return server.count() == 1; }));
  REQUIRE(run.engine().delete_endpoint("wh_1").ok());
  run.endpoint("wh_1", server.url("/new"));
  run.submit(delivery("msg_2", "wh_1"));
  REQUIRE(run.until_attempts(2));
  CHECK(run.attempts("msg_2").at(0).state == DeliveryState::kDelivered);
  CHECK(run.attempts("msg_1").at(0).state == DeliveryState::kCancelled);
  CHECK(run.engine().delete_endpoint("wh_never").ok());
  run.turn();
  CHECK(run.engine().stats().lanes == 1);
}

TEST_CASE("endpoint: a delivery to an unknown webhook ends") {
  EngineRun run;
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_none"));
  CHECK(attempt.state == DeliveryState::kCancelled);
  CHECK(attempt.error == ErrorClass::kUnknownWebhook);
  CHECK(attempt.number == 0);
  CHECK(attempt.delivery_id == "msg_1");
  CHECK(attempt.webhook_id == "wh_none");
  CHECK(run.engine().stats().waiting == 0);
}

TEST_CASE("delivery: a duplicate is sent once") {
  TestServer server;
  server.otherwise([](const Request&) { return Reply().wait(50).answer(200); });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 3; ++i) {
    run.submit(delivery("msg_1", "wh_1"));
  }
  REQUIRE(run.until_attempts(1));
  run.run_for(100ms);
  CHECK(server.count() == 1);
  CHECK(run.attempts().size() == 1);
  CHECK(run.engine().stats().waiting == 0);
  // Once it has ended it may come again.
  run.outcome(delivery("msg_1", "wh_1"));
  CHECK(server.count() == 2);
}

TEST_CASE("delivery: a manual one replaces a waiting one") {
  TestServer server;
  server.on("/", std::vector<Reply>{answer(500), answer(500), answer(200)});
  EngineRun run(retry_after_ms({700, 50}));
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until_attempts(1));
  Delivery manual = delivery("msg_1", "wh_1");
  manual.attempts = 1;
  manual.schedule_from = 1;
  manual.manual = true;
  const auto begin = std::chrono::steady_clock::now();
  run.submit(std::move(manual));
  REQUIRE(run.until_attempts(2));
  CHECK(std::chrono::steady_clock::now() - begin < 300ms * kSlowdown);
  CHECK(run.attempts()[1].number == 2);
  // Its schedule began anew: the next wait is the first step again.
  const std::int64_t wait = run.attempts()[1].next_at_ms.value() - unix_ms();
  CHECK(wait > 400);
  REQUIRE(run.until_attempts(3));
  CHECK(run.attempts()[2].number == 3);
  CHECK(run.attempts()[2].state == DeliveryState::kDelivered);
  run.run_for(200ms);
  CHECK(server.count() == 3);
}

TEST_CASE("delivery: a manual one goes to the front of its lane") {
  TestServer server;
  server.otherwise([](const Request&) { return Reply().wait(5).answer(200); });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.in_flight_max = 1; });
  std::vector<Delivery> line;
  for (int i = 0; i < 100; ++i) {
    line.push_back(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  run.submit(std::move(line));
  run.turn();
  Delivery test = delivery("msg_test", "wh_1");
  test.manual = true;
  run.submit(std::move(test));
  REQUIRE(run.until_attempts(101));
  const auto requests = server.requests();
  std::size_t place = 0;
  while (requests[place].header("webhook-id") != "msg_test") {
    ++place;
  }
  CHECK(place < 20);
}

TEST_CASE("delivery: a manual one in flight is not sent twice") {
  TestServer server;
  server.otherwise(
      [](const Request&) { return Reply().wait(100).answer(200); });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  run.submit(delivery("msg_1", "wh_1"));
  REQUIRE(run.until([&] { return server.count() == 1; }));
  Delivery manual = delivery("msg_1", "wh_1");
  manual.manual = true;
  run.submit(std::move(manual));
  REQUIRE(run.until_attempts(1));
  run.run_for(150ms);
  CHECK(server.count() == 1);
  CHECK(run.attempts().size() == 1);
}
