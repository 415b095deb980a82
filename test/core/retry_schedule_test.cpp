// Purpose: when a failed delivery is tried again, and what Retry-After says.
// Thread: one.
#include "webhooks/retry_schedule.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "catch.hpp"

using webhooks::parse_retry_after_ms;
using webhooks::RetrySchedule;

namespace {

constexpr std::uint32_t kMax = std::numeric_limits<std::uint32_t>::max();

struct Range {
  std::uint32_t low = kMax;
  std::uint32_t high = 0;
};

// Every kind of random number: the ends, and many in between.
Range delays(const RetrySchedule& schedule, std::uint32_t failures,
             std::optional<std::int64_t> retry_after_ms) {
  Range range;
  const auto take = [&](std::uint32_t random) {
    const auto delay = schedule.next_delay_ms(failures, retry_after_ms, random);
    REQUIRE(delay.has_value());
    range.low = std::min(range.low, *delay);
    range.high = std::max(range.high, *delay);
  };
  for (std::uint32_t random = 0; random < 20'000; ++random) {
    take(random);
  }
  std::uint32_t random = 12345;
  for (int i = 0; i < 20'000; ++i) {
    random = random * 1664525U + 1013904223U;
    take(random);
  }
  take(kMax);
  return range;
}

// 2026-11-23T10:15:30Z
constexpr std::int64_t kNowMs = 1'795'428'930'000;

}  // namespace

TEST_CASE("retry schedule: each step within its jitter, then used up") {
  const RetrySchedule schedule{{10'000, 60'000, 300'000}, 20, 21'600'000};
  const Range first = delays(schedule, 1, std::nullopt);
  CHECK(first.low == 8'000);
  CHECK(first.high == 12'000);
  const Range second = delays(schedule, 2, std::nullopt);
  CHECK(second.low >= 48'000);
  CHECK(second.low <= 49'000);
  CHECK(second.high >= 71'000);
  CHECK(second.high <= 72'000);
  const Range third = delays(schedule, 3, std::nullopt);
  CHECK(third.low >= 240'000);
  CHECK(third.high <= 360'000);
  CHECK_FALSE(schedule.next_delay_ms(4, std::nullopt, 7).has_value());
  CHECK_FALSE(schedule.next_delay_ms(kMax, std::nullopt, 7).has_value());
  CHECK_FALSE(schedule.next_delay_ms(0, std::nullopt, 7).has_value());
}

TEST_CASE("retry schedule: an asked-for wait does not make it longer") {
  const RetrySchedule schedule{{10'000}, 20, 21'600'000};
  CHECK_FALSE(schedule.next_delay_ms(2, 1'000, 7).has_value());
  const RetrySchedule none{{}, 20, 21'600'000};
  CHECK_FALSE(none.next_delay_ms(1, 1'000, 7).has_value());
}

TEST_CASE("retry schedule: jitter of 0 and of 100 percent") {
  const Range exact = delays({{1'000}, 0, 0}, 1, std::nullopt);
  CHECK(exact.low == 1'000);
  CHECK(exact.high == 1'000);
  const Range wide = delays({{1'000}, 100, 0}, 1, std::nullopt);
  CHECK(wide.low == 0);
  CHECK(wide.high == 2'000);
  const Range zero = delays({{0}, 20, 0}, 1, std::nullopt);
  CHECK(zero.high == 0);
}

TEST_CASE("retry schedule: never earlier than asked for, never past the cap") {
  const RetrySchedule schedule{{10'000}, 20, 3'600'000};
  const Range told = delays(schedule, 1, 7'000);
  CHECK(told.low == 7'000);
  CHECK(told.high >= 8'000);
  CHECK(told.high <= 8'400);
  // Jitter has a limit of its own: an hour is not made twelve minutes longer.
  const Range capped = delays(schedule, 1, std::int64_t{1} << 60);
  CHECK(capped.low == 3'600'000);
  CHECK(capped.high <= 3'605'000);
  // "0" and the past say nothing: the schedule's own step stands, so that a
  // receiver cannot make us hammer it.
  CHECK(delays(schedule, 1, 0).low == 8'000);
  CHECK(delays(schedule, 1, -5).low == 8'000);
}

TEST_CASE("retry schedule: the longest delays do not wrap around") {
  const RetrySchedule schedule{{kMax}, 100, kMax};
  for (const std::uint32_t random : {0U, 1U, kMax / 2, kMax - 1, kMax}) {
    const auto told = schedule.next_delay_ms(
        1, std::numeric_limits<std::int64_t>::max(), random);
    REQUIRE(told.has_value());
    CHECK(*told == kMax);
  }
  const RetrySchedule modest{{kMax}, 20, kMax};
  for (const std::uint32_t random : {0U, 1U, kMax / 2, kMax - 1, kMax}) {
    CHECK(modest.next_delay_ms(1, std::nullopt, random).value() >=
          kMax / 5 * 4);
  }
}

TEST_CASE("Retry-After: seconds") {
  CHECK(parse_retry_after_ms("120", kNowMs) == 120'000);
  CHECK(parse_retry_after_ms(" \t120 ", kNowMs) == 120'000);
  CHECK(parse_retry_after_ms("0", kNowMs) == 0);
  CHECK(parse_retry_after_ms("007", kNowMs) == 7'000);
  for (const std::string huge :
       {"1000000000", "99999999999", "18446744073709551616",
        "99999999999999999999999999999999"}) {
    INFO(huge);
    const auto wait = parse_retry_after_ms(huge, kNowMs);
    REQUIRE(wait.has_value());
    CHECK(*wait >= 1'000'000'000'000);
    CHECK(*wait <= 100'000'000'000'000);
  }
}

TEST_CASE("Retry-After: the three forms of an HTTP date") {
  CHECK(parse_retry_after_ms("Mon, 23 Nov 2026 10:16:30 GMT", kNowMs) ==
        60'000);
  CHECK(parse_retry_after_ms("Monday, 23-Nov-26 10:16:30 GMT", kNowMs) ==
        60'000);
  CHECK(parse_retry_after_ms("Mon Nov 23 10:16:30 2026", kNowMs) == 60'000);
  CHECK(parse_retry_after_ms("Wed, 21 Oct 2015 07:28:00 GMT", kNowMs) == 0);
  // Years that curl takes and whose milliseconds do not fit.
  for (const char* far :
       {"Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 62000000 Dec9 23:59",
        "Fri, 2147483647 Dec 9 23:59"}) {
    INFO(far);
    CHECK(parse_retry_after_ms(far, kNowMs).value_or(1'000'000'000'000) ==
          1'000'000'000'000);
  }
  CHECK(parse_retry_after_ms("Fri, 31 Dec 9999 23:59:59 GMT", kNowMs) ==
        1'000'000'000'000);
}

TEST_CASE("Retry-After: anything else is no answer") {
  for (const std::string text : {"",
                                 " ",
                                 "-1",
                                 "-0",
                                 "+5",
                                 "1.5",
                                 "1e3",
                                 "12 seconds",
                                 "5s",
                                 "0x10",
                                 "soon",
                                 "tomorrow",
                                 "Mon",
                                 "Monday",
                                 "Sometime",
                                 "12:00",
                                 "2026-11-23T10:16:30Z",
                                 "Mon, 99 Nov 2026 10:16:30 GMT",
                                 "Thu, 01 Foo 2026 10:16:30 GMT",
                                 "120, 60",
                                 "12\n0"}) {
    INFO(text);
    CHECK_FALSE(parse_retry_after_ms(text, kNowMs).has_value());
  }
  CHECK_FALSE(parse_retry_after_ms(std::string("1\0", 2), kNowMs).has_value());
  CHECK_FALSE(
      parse_retry_after_ms(std::string(70'000, '9'), kNowMs).has_value());
}
