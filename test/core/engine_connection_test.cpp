// Purpose: connections are kept and reused. If a receiver closes a connection
// or sends an answer without a request, no delivery is lost, gets the answer of
// another one, or is sent without a record.
// Thread: one; the server has its own.
#include <chrono>
#include <string>

#include "catch.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

// Sends one after the other. Each must be delivered at its first attempt or, if
// the receiver closes kept connections, at the second one right after it.
void deliver_all(EngineRun& run, int count,
                 std::chrono::milliseconds pause = 0ms,
                 std::uint32_t attempts_max = 1) {
  for (int i = 0; i < count; ++i) {
    const std::string id = "msg_" + std::to_string(i);
    run.submit(delivery(id, "wh_1"));
    const std::size_t before = run.ended();
    REQUIRE(run.until([&] { return run.ended() > before; }));
    const auto attempts = run.attempts(id);
    CHECK(attempts.back().state == DeliveryState::kDelivered);
    CHECK(attempts.size() <= attempts_max);
    if (attempts.size() > 1) {
      const Attempt& first = attempts.front();
      INFO(i << ": " << first.detail);
      CHECK(error_name(first.error) == "connection_closed");
      CHECK(first.schedule_from == 1);  // it costs no retry
      CHECK(first.next_at_ms.value() - first.started_at_ms < 1'000 * kSlowdown);
    }
    if (pause > 0ms) {
      run.run_for(pause);
    }
  }
}

}  // namespace

TEST_CASE("connection: one for many deliveries") {
  TestServer server;
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  deliver_all(run, 30);
  CHECK(server.connections() == 1);
  CHECK(run.engine().stats().connections_opened == 1);
  // The first attempt reports the time of the connection, the others none.
  CHECK(run.attempts()[0].connect_us.has_value());
  CHECK_FALSE(run.attempts()[1].connect_us.has_value());
}

TEST_CASE("connection: as many as there are requests at a time, no more") {
  TestServer server;
  server.otherwise([](const Request&) { return Reply().wait(10).answer(200); });
  EngineOptions options = test_options();
  options.lane_in_flight_max = 4;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 40; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until_attempts(40));
  CHECK(server.connections() <= 4);
}

TEST_CASE("connection: reused beyond the limit of idle ones") {
  TestServer server;
  // Not in step: while most are at work, some have just become idle.
  server.otherwise([](const Request& request) {
    const auto wait = 5 + static_cast<std::uint32_t>(request.connection % 16);
    return Reply().wait(wait).answer(200);
  });
  EngineOptions options = test_options();
  options.multi_handles = 1;
  options.lane_in_flight_max = options.destination_in_flight_max = 200;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 1'500; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  REQUIRE(run.until_attempts(1'500));
  CHECK(server.connections() <= 400);
}

TEST_CASE("connection: kept after failures and medium answers") {
  TestServer server;
  server.on("/", std::vector<Reply>{
                     answer(500, {}, "no"), answer(404, {}, "no"),
                     answer(302, {{"Location", "/x"}}),
                     answer(200, {}, std::string(16'000, 'l')), answer(204),
                     Reply().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: "
                                  "chunked\r\n\r\n" +
                                  chunked("pieces", 2)),
                     answer(200)});
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 7; ++i) {
    run.outcome(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  CHECK(server.count() == 7);
  CHECK(server.connections() == 1);
}

TEST_CASE("connection: closed when the receiver says so") {
  TestServer server;
  server.otherwise([](const Request&) {
    return answer(200, {{"Connection", "close"}}).close();
  });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  deliver_all(run, 10);
  CHECK(server.connections() == 10);
}

TEST_CASE("connection: closed silently between two requests") {
  // The close may be seen before or after the next request is sent. Both must
  // work.
  const auto pause = GENERATE(0ms, 1ms, 20ms);
  const bool reset = GENERATE(false, true);
  INFO("pause " << pause.count() << (reset ? ", reset" : ", close"));
  TestServer server;
  server.otherwise([reset](const Request&) {
    Reply reply = answer(200);
    return reset ? reply.wait(1).reset() : reply.close();
  });
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  deliver_all(run, 20, pause, 2);
  CHECK(server.count() >= 20);
  CHECK(server.count() <= run.attempts().size());
}

TEST_CASE(
    "connection: closed on a request over a kept one, each is on record") {
  // Left to itself, curl would send it again without telling us.
  const bool reset = GENERATE(false, true);
  const std::string body(GENERATE(2U, 200'000U), 'b');
  TestServer server;
  server.otherwise([reset](const Request& request) {
    if (request.on_connection == 1) {
      return answer(200);
    }
    return reset ? Reply().reset() : Reply().close();
  });
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 10; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1", body));
    REQUIRE(run.until([&] { return run.ended() == std::size_t(i) + 1; }));
  }
  CHECK(server.count() == run.attempts().size());
  for (const Request& request : server.requests()) {
    CHECK((request.body == body));
    CHECK(request.header("webhook-signature") ==
          hmac_signature(kSecretA, request.header("webhook-id"),
                         request.header("webhook-timestamp"), request.body));
  }
  for (const Attempt& attempt : run.attempts()) {
    CHECK((attempt.state == DeliveryState::kDelivered ||
           error_name(attempt.error) == "connection_closed"));
  }
}

TEST_CASE("connection: a test, which has one attempt, gets one of its own") {
  TestServer server;
  server.otherwise([](const Request& request) {
    return request.on_connection == 1 ? answer(200) : Reply().close();
  });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  for (int i = 0; i < 3; ++i) {
    Delivery one = delivery("msg_" + std::to_string(i), "wh_1");
    one.retry = false;
    CHECK(run.outcome(std::move(one)).state == DeliveryState::kDelivered);
  }
  CHECK(server.connections() == 3);
}

TEST_CASE("connection: a kept one that ends inside the answer fails") {
  TestServer server;
  server.otherwise([](const Request& request) {
    return request.on_connection == 1
               ? answer(200)
               : Reply().send("HTTP/1.1 200 OK\r\nX-H").close();
  });
  EngineRun run;
  run.endpoint("wh_1", server.url("/"));
  deliver_all(run, 1);
  run.submit(delivery("msg_cut", "wh_1"));
  REQUIRE(run.until([&] { return run.attempts("msg_cut").size() == 2; }));
  CHECK(run.attempts("msg_cut")[0].error == ErrorClass::kConnectionReset);
  CHECK(run.attempts("msg_cut")[1].state == DeliveryState::kDelivered);
}

TEST_CASE("connection: a late answer does not go to the next request") {
  TestServer server;
  server.on("/", std::vector<Reply>{Reply().wait(300).answer(410),
                                    Reply().wait(300).answer(200)});
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.timeout_ms = 200; });
  CHECK(run.outcome(delivery("msg_1", "wh_1")).error == ErrorClass::kTimeout);
  CHECK(run.outcome(delivery("msg_2", "wh_1")).error == ErrorClass::kTimeout);
  CHECK(server.connections() == 2);
}

TEST_CASE("connection: an extra answer does not go to the next request") {
  // Otherwise one webhook could answer for another one on the same host.
  TestServer server;
  server.on("/at_once", std::vector<Reply>{
                            Reply().send(answer_bytes(200) + answer_bytes(410)),
                            answer(200)});
  server.on("/soon", std::vector<Reply>{answer(200).answer(410), answer(200)});
  server.on("/late",
            std::vector<Reply>{answer(200).wait(20).answer(410), answer(200)});
  server.on("/much", std::vector<Reply>{Reply().send(answer_bytes(200) +
                                                     std::string(300'000, 'x') +
                                                     answer_bytes(410)),
                                        answer(200)});
  for (const std::string path : {"/at_once", "/soon", "/late", "/much"}) {
    INFO(path);
    EngineRun run;
    run.endpoint("wh_1", server.url(path));
    CHECK(run.outcome(delivery("msg_1", "wh_1")).status == 200);
    run.run_for(60ms);
    // At the first attempt, or at the one that follows a closed connection.
    run.submit(delivery("msg_2", "wh_1"));
    REQUIRE(run.until([&] { return run.ended() == 2; }));
    CHECK(run.attempts().back().status == 200);
  }
}

TEST_CASE("connection: an answer before the request is ignored") {
  ServerOptions how;
  how.greeting = answer_bytes(410);
  TestServer server(how);
  server.otherwise([](const Request&) { return answer(200); });
  EngineOptions options = test_options();
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  // curl cannot detect this. But the attempt must end, and the next one must
  // get its own answer.
  const Attempt first = run.outcome(delivery("msg_1", "wh_1"));
  CHECK((first.status == 410 || first.status == 200 || first.status == 0));
  CHECK(run.attempts().size() == 1);
}

TEST_CASE("connection: webhooks of one destination do not mix up") {
  TestServer server;
  server.otherwise([](const Request& request) {
    return Reply().wait(2).answer(200, {}, request.path());
  });
  EngineRun run;
  for (int lane = 0; lane < 8; ++lane) {
    const std::string id = std::to_string(lane);
    run.endpoint("wh_" + id, server.url("/lane" + id), [&](Endpoint& endpoint) {
      endpoint.headers = {{"X-Lane", id}};
    });
  }
  std::vector<Delivery> all;
  for (int i = 0; i < 400; ++i) {
    const std::string lane = std::to_string(i % 8);
    all.push_back(delivery("msg_" + std::to_string(i), "wh_" + lane,
                           "body of " + std::to_string(i)));
  }
  run.submit(std::move(all));
  REQUIRE(run.until_attempts(400));
  for (const Attempt& attempt : run.attempts()) {
    CHECK(attempt.state == DeliveryState::kDelivered);
    CHECK(attempt.response_body == "/lane" + attempt.webhook_id.substr(3));
  }
  for (const Request& request : server.requests()) {
    const std::string number = request.header("webhook-id").substr(4);
    CHECK(request.body == "body of " + number);
    CHECK(request.header("x-lane") == std::to_string(std::stoi(number) % 8));
    CHECK(request.path() == "/lane" + request.header("x-lane"));
  }
}
