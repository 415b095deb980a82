// Purpose: finds pieces of the loop's work that took much CPU time. By the
// steady clock, whatever is at work would be blamed while the machine is busy
// with something else.
// Ownership: a plain value.
// Thread: loop only.
#pragma once

#include <cstdint>

#include "core/clock.hpp"

namespace webhooks {

// Work for one webhook takes a few milliseconds at most.
inline constexpr std::int64_t kSlowSliceUs = 250'000;

class Slices {
 public:
  // The thread begins to work: on another delivery, or after a wait.
  void begin() noexcept {
    cpu_us_ = thread_cpu_us();
    steady_us_ = steady_now_us();
  }

  // The CPU time of a piece of work that began then; 0 unless it is slow. What
  // lies between the last look at the CPU time and the beginning counts as
  // work, so the result is rather too small than too large: asking twice for
  // each piece would cost a percent of all work.
  std::int64_t slow_since(std::int64_t began_us) noexcept {
    constexpr std::int64_t kLookUs = 1'000;
    const std::int64_t now_us = steady_now_us();
    if (now_us - began_us < kLookUs) {
      return 0;
    }
    const std::int64_t cpu_us = thread_cpu_us();
    const std::int64_t took_us = cpu_us - cpu_us_ - (began_us - steady_us_);
    cpu_us_ = cpu_us;
    steady_us_ = now_us;
    return took_us >= kSlowSliceUs ? took_us : 0;
  }

 private:
  std::int64_t cpu_us_ = 0;
  std::int64_t steady_us_ = 0;
};

}  // namespace webhooks
