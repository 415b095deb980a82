// Purpose: the engine's clocks. Deadlines run on the steady clock; the wall
// clock only dates what leaves the process.
// Thread: any.
#pragma once

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

}  // namespace webhooks
