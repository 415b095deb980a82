// Purpose: the rate of a lane: its endpoint's rate, or less after the receiver
// has answered "too many requests". Such an answer holds the lane and lowers
// the rate. Each success raises the rate a little, so that the lane notices
// when the receiver accepts more.
// Ownership: a plain value.
// Thread: loop only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "webhooks/rate_limit.hpp"

namespace webhooks {

class LaneRate {
 public:
  LaneRate(double full_per_s, std::int64_t now_us) {
    reset(full_per_s, now_us);
  }

  // After a change of endpoint nothing is known of the receiver.
  void reset(double full_per_s, std::int64_t now_us) {
    *this = LaneRate(full_per_s, TokenBucket(full_per_s, full_per_s, now_us));
  }

  TokenBucket& bucket() noexcept { return bucket_; }
  double per_s() const noexcept { return per_s_; }
  std::int64_t held_until_us() const noexcept { return held_until_us_; }
  // Nothing has passed since the last answer of that kind.
  bool probing() const noexcept { return limited_in_a_row_ > 0; }

  // The receiver wants fewer requests, and none for `told_ms` (0: it did not
  // say). Returns how long the lane is held.
  std::int64_t limit(std::int64_t told_ms, std::int64_t now_us) {
    std::int64_t hold_ms = std::max(told_ms, (held_until_us_ - now_us) / 1000);
    // Other answers of the same burst teach nothing new.
    if (now_us >= held_until_us_) {
      const bool far_too_high = passed_ < kPassedMin;
      per_s_ = std::max(per_s_ * (far_too_high ? kDownFast : kDown), kPerSMin);
      passed_ = 0;
      const auto doubled = std::min(limited_in_a_row_++, 16U);
      hold_ms = std::max(hold_ms, std::min(kHoldMs << doubled, kHoldMsMax));
    }
    held_until_us_ = now_us + hold_ms * 1000;
    bucket_.set_rate(per_s_, 1);
    bucket_.hold(held_until_us_);
    return hold_ms;
  }

  void succeed() noexcept {
    limited_in_a_row_ = 0;
    ++passed_;
    if (per_s_ < full_per_s_) {
      per_s_ = std::min(per_s_ * kUp, full_per_s_);
      bucket_.set_rate(per_s_, per_s_ < full_per_s_ ? 1 : full_per_s_);
    }
  }

 private:
  LaneRate(double full_per_s, const TokenBucket& bucket)
      : bucket_(bucket), full_per_s_(full_per_s), per_s_(full_per_s) {}

  static constexpr double kPerSMin = 0.02;
  static constexpr double kDown = 0.9;
  static constexpr double kDownFast = 0.5;
  static constexpr double kUp = 1.01;
  static constexpr std::uint32_t kPassedMin = 8;
  // Of a receiver that does not say for how long; doubled each time.
  static constexpr std::int64_t kHoldMs = 1'000;
  static constexpr std::int64_t kHoldMsMax = 300'000;

  TokenBucket bucket_{1, 1, 0};
  double full_per_s_ = 1;
  double per_s_ = 1;
  std::uint32_t limited_in_a_row_ = 0;
  std::uint32_t passed_ = 0;  // since the last such answer
  std::int64_t held_until_us_ = 0;
};

}  // namespace webhooks
