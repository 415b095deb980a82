// Purpose: a token bucket: at most `burst` at once and `rate_per_s` over time.
// Ownership: a plain value.
// Thread: one at a time; the clock is the caller's (monotonic microseconds).
#pragma once

#include <algorithm>
#include <cstdint>

namespace webhooks {

class TokenBucket {
 public:
  TokenBucket(double rate_per_s, double burst, std::int64_t now_us)
      : interval_us_(rate_per_s > 0 ? 1'000'000.0 / rate_per_s : 0),
        burst_(std::max(burst, 1.0)),
        tokens_(burst_),
        at_us_(now_us) {}

  bool available(std::int64_t now_us) noexcept {
    refill(now_us);
    return tokens_ >= 1.0;
  }
  // Only after available() returned true for the same instant.
  void take() noexcept { tokens_ -= 1.0; }
  // Returns a token that was taken and not used.
  void give_back() noexcept { tokens_ = std::min(tokens_ + 1.0, burst_); }
  // From now on at this rate.
  void set_rate(double rate_per_s, double burst) noexcept {
    interval_us_ = 1'000'000.0 / rate_per_s;
    burst_ = std::max(burst, 1.0);
  }
  // There is one token at `until_us`, and none before.
  void hold(std::int64_t until_us) noexcept {
    tokens_ = 0;
    at_us_ = until_us - static_cast<std::int64_t>(interval_us_);
  }
  // When the next token is there; now or earlier when one is.
  std::int64_t next_us() const noexcept {
    if (tokens_ >= 1.0) {
      return at_us_;
    }
    return at_us_ + static_cast<std::int64_t>((1.0 - tokens_) * interval_us_) +
           1;
  }

 private:
  void refill(std::int64_t now_us) noexcept {
    if (now_us <= at_us_) {
      return;
    }
    const auto passed_us = static_cast<double>(now_us - at_us_);
    tokens_ = interval_us_ > 0
                  ? std::min(tokens_ + passed_us / interval_us_, burst_)
                  : burst_;
    at_us_ = now_us;
  }

  double interval_us_;
  double burst_;
  double tokens_;
  std::int64_t at_us_;
};

}  // namespace webhooks
