// Purpose: when a failed delivery is tried again, and what Retry-After says.
// Thread: one.
#include "webhooks/retry_schedule.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
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
template <class DelayOf>
Range range_of(DelayOf delay_of) {
  Range range;
  const auto take = [&](std::uint32_t random) {
    const std::uint32_t delay = delay_of(random);
    range.low = std::min(range.low, delay);
    range.high = std::max(range.high, delay);
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

Range delays(const RetrySchedule& schedule, std::uint32_t failures) {
  return range_of([&](std::uint32_t random) {
    return schedule.next_delay_ms(failures, random).value();
  });
}

Range asked(const RetrySchedule& schedule, std::int64_t asked_ms) {
  return range_of([&](std::uint32_t random) {
    return schedule.asked_delay_ms(asked_ms, random);
  });
}

// 2026-11-23T10:15:30Z
constexpr std::int64_t kNowMs = 1'795'428'930'000;

}  // namespace

TEST_CASE("retry schedule: each delay is within its jitter, then it ends") {
  struct Row {
    std::uint32_t step_ms;
    std::uint32_t jitter_percent;
    std::uint32_t low;
    std::uint32_t high;
  };
  for (const Row& row :
       {Row{10'000, 20, 8'000, 12'000}, Row{1'000, 0, 1'000, 1'000},
        Row{1'000, 100, 0, 2'000}, Row{0, 20, 0, 0}}) {
    INFO(row.step_ms << " ms, " << row.jitter_percent << " %");
    const Range range =
        delays({{7, row.step_ms}, row.jitter_percent, 21'600'000}, 2);
    CHECK(range.low == row.low);
    CHECK(range.high == row.high);
  }
  const RetrySchedule schedule{{10'000, 600'000, 14'400'000}, 20, 21'600'000};
  for (const std::uint32_t failures : {0U, 4U, kMax}) {
    CHECK_FALSE(schedule.next_delay_ms(failures, 7).has_value());
  }
}

TEST_CASE("retry schedule: Retry-After is never shortened, only capped") {
  const RetrySchedule schedule{{10'000}, 20, 3'600'000};
  const Range told = asked(schedule, 7'000);
  CHECK(told.low == 7'000);
  CHECK(told.high >= 8'000);
  CHECK(told.high <= 8'400);
  // Jitter has a limit of its own: an hour is not made twelve minutes longer.
  const Range capped = asked(schedule, std::int64_t{1} << 60);
  CHECK(capped.low == 3'600'000);
  CHECK(capped.high <= 3'605'000);
  CHECK(asked(schedule, 0).high == 0);
  CHECK(asked(schedule, -5).high == 0);
}

TEST_CASE("retry schedule: the longest delays do not overflow") {
  const RetrySchedule schedule{{kMax}, 20, kMax};
  for (const std::uint32_t random : {0U, 1U, kMax / 2, kMax - 1, kMax}) {
    CHECK(schedule.asked_delay_ms(std::numeric_limits<std::int64_t>::max(),
                                  random) == kMax);
    CHECK(schedule.next_delay_ms(1, random).value() >= kMax / 5 * 4);
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

TEST_CASE("Retry-After: anything else is ignored") {
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
