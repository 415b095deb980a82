// Purpose: limits on what is kept of an answer, to the byte, and what hostile
// answers must not do to the engine. What becomes of each kind of broken,
// endless, slow or odd answer is in test/faults/rows.
// Thread: one; the server has its own.
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "catch.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

bool valid_utf8(const std::string& text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const std::size_t more = byte < 0x80             ? 0
                             : (byte & 0xE0) == 0xC0 ? 1
                             : (byte & 0xF0) == 0xE0 ? 2
                             : (byte & 0xF8) == 0xF0 ? 3
                                                     : 9;
    if (more > 3 || at + more >= text.size()) {
      return false;
    }
    for (std::size_t i = 1; i <= more; ++i) {
      if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) {
        return false;
      }
    }
    at += more + 1;
  }
  return true;
}

struct Outcome {
  Attempt attempt;
  std::chrono::milliseconds took{};
  std::uint64_t bytes_sent = 0;
};

// One attempt without retry, with a timeout of 800 ms. Checks what every
// outcome must have.
Outcome suffer(Reply reply, const EngineOptions& options = test_options()) {
  TestServer server;
  server.on("/", std::move(reply));
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"),
               [](Endpoint& endpoint) { endpoint.timeout_ms = 800; });
  Delivery one = delivery("msg_1", "wh_1");
  one.retry = false;
  Outcome out;
  const auto begin = std::chrono::steady_clock::now();
  out.attempt = run.outcome(std::move(one));
  out.took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - begin);
  out.bytes_sent = server.bytes_sent();
  CHECK(out.took < 1'200ms * kSlowdown);
  CHECK(out.attempt.detail.size() <= kDetailBytesMax);
  CHECK(valid_utf8(out.attempt.detail));
  CHECK(out.attempt.response_body.size() <= options.response_body_bytes_max);
  // Nothing is left behind, and the engine goes on.
  server.on("/", answer(200));
  CHECK(run.outcome(delivery("msg_2", "wh_1")).state ==
        DeliveryState::kDelivered);
  CHECK(run.engine().stats().in_flight == 0);
  CHECK(run.engine().stats().waiting == 0);
  CHECK(run.attempts().size() == 2);
  return out;
}

void check_fails(const Outcome& outcome, ErrorClass error) {
  INFO("detail: " << outcome.attempt.detail);
  CHECK(outcome.attempt.state == DeliveryState::kFailed);
  CHECK(error_name(outcome.attempt.error) == error_name(error));
  // An HTTP status needs no detail.
  CHECK(outcome.attempt.detail.empty() == (error == ErrorClass::kHttpStatus));
}

const std::string kOk = "HTTP/1.1 200 OK\r\n";

}  // namespace

TEST_CASE("hostile: a dripping body holds its place for a second") {
  TestServer server;
  server.on(
      "/", Reply().send(kOk + "Content-Length: 1000\r\n\r\n").endless("x", 50));
  EngineOptions options = test_options();
  options.timeout_ms = 60'000;
  options.destination_in_flight_max = 4;
  EngineRun run(options);
  run.endpoint("wh_1", server.url("/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  CHECK(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.response_truncated);
  CHECK(attempt.total_us.value() >= 1'000'000);
  CHECK(attempt.total_us.value() < 1'500'000U * kSlowdown);
  // Such a receiver does not count as proven: half of the places stay free.
  for (int i = 2; i < 10; ++i) {
    run.submit(delivery("msg_" + std::to_string(i), "wh_1"));
  }
  run.run_for(500ms);
  CHECK(run.engine().stats().in_flight == 2);
}

TEST_CASE("hostile: headers just under the limit are accepted") {
  const std::string line = "X-F: " + std::string(1'017, 'f') + "\r\n";
  std::string head = kOk;
  for (int i = 0; i < 60; ++i) {
    head += line;
  }
  const Outcome under =
      suffer(Reply().send(head + "Content-Length: 0\r\n\r\n"));
  CHECK(under.attempt.state == DeliveryState::kDelivered);
  EngineOptions options = test_options();
  options.response_header_bytes_max = 10'000;
  check_fails(suffer(Reply().send(head + "Content-Length: 0\r\n\r\n"), options),
              ErrorClass::kResponseTooLarge);
}

TEST_CASE("hostile: a body is kept exactly up to the limit") {
  EngineOptions options = test_options();
  options.response_body_bytes_max = 10;
  for (const std::size_t size : {9U, 10U, 11U, 5'000U, 20'000U}) {
    INFO(size);
    const std::string body(size, 'b');
    const Outcome whole = suffer(answer(200, {}, body), options);
    CHECK(whole.attempt.state == DeliveryState::kDelivered);
    CHECK(whole.attempt.response_body == body.substr(0, 10));
    CHECK(whole.attempt.response_truncated == (size > 10));
    const Outcome pieces =
        suffer(Reply().send(kOk + "Transfer-Encoding: chunked\r\n\r\n" +
                            chunked(body, 7)),
               options);
    CHECK(pieces.attempt.response_body == body.substr(0, 10));
    CHECK(pieces.attempt.response_truncated == (size > 10));
  }
  options.response_body_bytes_max = 0;
  const Outcome none = suffer(answer(200, {}, "body"), options);
  CHECK(none.attempt.state == DeliveryState::kDelivered);
  CHECK(none.attempt.response_body.empty());
}

TEST_CASE("hostile: an answer before the body was read") {
  TestServer server;
  server.on("/polite", Reply().early().answer(413).finish());
  server.on("/rude", Reply().early().answer(413).close());
  EngineOptions options = test_options();
  options.body_bytes_max = 32 * 1024 * 1024;
  options.retry_delays_ms = {};
  EngineRun run(options);
  run.endpoint("wh_polite", server.url("/polite"));
  run.endpoint("wh_rude", server.url("/rude"));
  const std::string large(16 * 1024 * 1024, 'l');
  const Attempt polite = run.outcome(delivery("msg_1", "wh_polite", large));
  CHECK(polite.status == 413);
  CHECK(polite.error == ErrorClass::kHttpStatus);
  // A server that closes on unread bytes resets: its answer may be lost.
  const Attempt rude = run.outcome(delivery("msg_2", "wh_rude", large));
  CHECK(rude.state == DeliveryState::kFailed);
  CHECK((rude.status == 413 || rude.error == ErrorClass::kConnectionReset));
}

TEST_CASE("hostile: compressed answers are not inflated") {
  const std::string gzip("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 10);
  const Outcome outcome =
      suffer(answer(200, {{"Content-Encoding", "gzip"}}, gzip + "rest"));
  CHECK(outcome.attempt.state == DeliveryState::kDelivered);
  CHECK(outcome.attempt.response_body == gzip + "rest");
}

TEST_CASE("hostile: compressed transfer codings are not inflated") {
  // The words "inflated inflated ...".
  const std::string gzip(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\xcc\x4b\xcb\x49\x2c\x49"
      "\x4d\x51\xc8\xa4\x8c\x01\x00\xb3\x23\x9c\x61\x48\x00\x00\x00",
      32);
  for (const std::string& rest :
       {"Transfer-Encoding: gzip\r\n\r\n" + gzip,
        "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(gzip, 7)}) {
    INFO(rest.substr(0, 32));
    const Outcome outcome = suffer(Reply().send(kOk + rest).close());
    CHECK(outcome.attempt.state == DeliveryState::kDelivered);
    CHECK(outcome.attempt.response_body.find("inflated") == std::string::npos);
  }
}

TEST_CASE("hostile: headers of an answer are kept as they are, and bounded") {
  const std::string odd = "text/\x1b[31mred\x80\xff";
  const Outcome outcome = suffer(
      answer(200, {{"X-Odd", odd}, {"X-Long", std::string(9'000, 'x')}}));
  CHECK(outcome.attempt.state == DeliveryState::kDelivered);
  CHECK(outcome.attempt.response_headers.find("X-Odd: " + odd + "\n") !=
        std::string::npos);
  CHECK(outcome.attempt.response_headers.find("X-Long") == std::string::npos);
  CHECK(outcome.attempt.response_headers.size() <= kResponseHeadersKeptMax);
}
