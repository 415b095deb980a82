// Purpose: the engine's clocks. Deadlines run on the steady clock; the wall
// clock only dates what leaves the process; work is measured in CPU time.
// Thread: any.
#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>
#include <limits>

namespace webhooks {

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

inline std::int64_t steady_now_us() noexcept {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline std::int64_t wall_now_ms() noexcept {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Of the calling thread. A system call, ten times as dear as the other clocks.
inline std::int64_t thread_cpu_us() noexcept {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return std::int64_t{used.tv_sec} * 1'000'000 + used.tv_nsec / 1000;
}

}  // namespace webhooks
