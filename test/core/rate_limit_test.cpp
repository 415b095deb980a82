// Purpose: the token bucket keeps its rate in every window and knows when the
// next token is there. A lane finds the rate that its receiver accepts.
// Thread: one.
#include "webhooks/rate_limit.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "catch.hpp"
#include "core/lane_rate.hpp"

using webhooks::LaneRate;
using webhooks::TokenBucket;

namespace {

// Takes whatever there is at each of these moments.
std::vector<std::int64_t> taken_at(TokenBucket bucket,
                                   const std::vector<std::int64_t>& moments) {
  std::vector<std::int64_t> out;
  for (const std::int64_t now : moments) {
    while (bucket.available(now)) {
      bucket.take();
      out.push_back(now);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("rate limit: a burst, then one per interval") {
  TokenBucket bucket(10, 3, 0);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(bucket.available(0));
    bucket.take();
  }
  CHECK_FALSE(bucket.available(0));
  CHECK_FALSE(bucket.available(99'990));
  CHECK(bucket.available(100'010));
  bucket.take();
  CHECK_FALSE(bucket.available(100'010));
}

TEST_CASE("rate limit: no window ever holds more than burst plus rate") {
  const std::uint32_t rate = GENERATE(1U, 3U, 50U, 200U, 999U);
  const std::uint32_t burst = GENERATE(1U, 5U, 50U);
  std::vector<std::int64_t> moments;
  std::int64_t now = 5'000'000;
  std::uint32_t random = rate * 31 + burst;
  for (int i = 0; i < 3'000; ++i) {
    random = random * 1664525U + 1013904223U;
    now += random % 20'000;
    moments.push_back(now);
  }
  const auto taken = taken_at(TokenBucket(rate, burst, 5'000'000), moments);
  REQUIRE(taken.size() > 10);
  // Nor is anything withheld: over the whole run the rate is reached.
  const double possible =
      burst + rate * static_cast<double>(now - 5'000'000) / 1e6;
  // A small bucket overflows between two looks; this one does not.
  if (rate <= 50 && burst >= 5) {
    CHECK(static_cast<double>(taken.size()) > possible - 2);
  }
  for (std::size_t first = 0; first < taken.size(); first += 7) {
    for (std::size_t last = first; last < taken.size();
         last += 1 + (last - first) / 3) {
      const double span_s =
          static_cast<double>(taken[last] - taken[first]) / 1e6;
      const double allowed = burst + rate * span_s + 1e-6;
      if (static_cast<double>(last - first + 1) > allowed) {
        INFO("from " << first << " to " << last);
        CHECK(static_cast<double>(last - first + 1) <= allowed);
      }
    }
  }
}

TEST_CASE("rate limit: next_us is neither early nor late") {
  // Early would spin the loop, late would waste the rate.
  const std::uint32_t rate = GENERATE(1U, 3U, 7U, 50U, 200U, 30'000U);
  std::int64_t now = 1'000'000'000'000;
  TokenBucket bucket(rate, 1, now);
  for (int i = 0; i < 2'000; ++i) {
    REQUIRE(bucket.available(now));
    bucket.take();
    const std::int64_t next = bucket.next_us();
    REQUIRE(next > now);
    REQUIRE(next - now <= 1'000'000 / rate + 3);
    TokenBucket copy = bucket;
    REQUIRE_FALSE(copy.available(next - 3));
    now = next;
  }
}

TEST_CASE("rate limit: idle time refills it up to the burst") {
  TokenBucket bucket(100, 5, 0);
  const std::vector<std::int64_t> moments = {0, 3'600'000'000};
  CHECK(taken_at(bucket, moments).size() == 10);
}

TEST_CASE("rate limit: a clock that stops or goes back adds no token") {
  TokenBucket bucket(100, 1, 1'000'000);
  REQUIRE(bucket.available(1'000'000));
  bucket.take();
  CHECK_FALSE(bucket.available(1'000'000));
  CHECK_FALSE(bucket.available(0));
  CHECK_FALSE(bucket.available(1'000'000));
  CHECK(bucket.available(1'010'001));
}

TEST_CASE("rate limit: a burst of 0 counts as 1") {
  TokenBucket bucket(10, 0, 0);
  CHECK(bucket.available(0));
  bucket.take();
  CHECK_FALSE(bucket.available(1'000));
}

TEST_CASE("rate limit: an unused token goes back, up to the burst") {
  TokenBucket bucket(10, 2, 0);
  REQUIRE(bucket.available(0));
  bucket.take();
  bucket.take();
  CHECK_FALSE(bucket.available(0));
  bucket.give_back();
  CHECK(bucket.available(0));
  bucket.give_back();
  bucket.give_back();
  bucket.take();
  bucket.take();
  CHECK_FALSE(bucket.available(0));
}

namespace {

constexpr std::int64_t kSecond = 1'000'000;

// What a receiver says to a request at this time.
using Receiver = std::function<bool(std::int64_t now_us)>;

// At most so many in any window.
Receiver window(std::size_t most, double seconds) {
  return [=, taken = std::deque<std::int64_t>()](std::int64_t now) mutable {
    while (!taken.empty() &&
           static_cast<double>(now - taken.front()) > seconds * 1e6) {
      taken.pop_front();
    }
    if (taken.size() == most) {
      return false;
    }
    taken.push_back(now);
    return true;
  };
}

struct Sent {
  std::size_t passed = 0;
  std::size_t limited = 0;
  double seconds = 0;
  double per_s = 0;
};

// Until so many have passed, or a day is over.
Sent send(const Receiver& receiver, std::int64_t told_ms, std::size_t count) {
  LaneRate rate(50, 0);
  Sent sent;
  std::int64_t now = 0;
  while (sent.passed < count && now < 86'400 * kSecond) {
    if (!rate.bucket().available(now)) {
      now = rate.bucket().next_us();
      continue;
    }
    rate.bucket().take();
    now += 5'000;
    if (receiver(now)) {
      ++sent.passed;
      rate.succeed();
    } else {
      ++sent.limited;
      rate.limit(told_ms, now);
    }
  }
  sent.seconds = static_cast<double>(now) / 1e6;
  sent.per_s = rate.per_s();
  return sent;
}

}  // namespace

TEST_CASE("lane rate: settles near what the receiver accepts") {
  struct Row {
    std::size_t most;
    double seconds;
    std::int64_t told_ms;
    double patience_s;
  };
  for (const Row& row : {Row{1, 1, 1'000, 75}, Row{5, 2, 0, 35},
                         Row{30, 60, 30'000, 240}, Row{10, 1, 1'000, 30}}) {
    INFO(row.most << " in " << row.seconds << " s");
    const Sent sent = send(window(row.most, row.seconds), row.told_ms, 60);
    INFO(sent.seconds << " s, " << sent.limited << " too many");
    CHECK(sent.passed == 60);
    CHECK(sent.seconds < row.patience_s);
    CHECK(sent.limited <= 15);
  }
}

TEST_CASE(
    "rate found: a receiver that takes nothing is asked ever less often") {
  const Sent sent = send([](std::int64_t) { return false; }, 1'000, 1);
  CHECK(sent.passed == 0);
  CHECK(sent.limited < 400);  // in a day
}

TEST_CASE("lane rate: rises when the receiver accepts more") {
  const Sent sent =
      send([](std::int64_t now) { return now > 60 * kSecond; }, 5'000, 500);
  CHECK(sent.per_s == 50);
  CHECK(sent.seconds < 240);
}

TEST_CASE(
    "rate found: one burst of refusals counts once, the longest wait wins") {
  LaneRate rate(50, 0);
  CHECK(rate.limit(2'000, 1'000) == 2'000);
  CHECK(rate.probing());
  CHECK(rate.limit(1'000, 501'000) == 1'500);
  CHECK(rate.limit(5'000, 1'001'000) == 5'000);
  CHECK(rate.per_s() == 25);
  CHECK_FALSE(rate.bucket().available(6'000'000));
  CHECK(rate.bucket().available(6'001'000));
  rate.bucket().take();
  CHECK_FALSE(rate.bucket().available(6'001'000));
  rate.succeed();
  CHECK_FALSE(rate.probing());
}
