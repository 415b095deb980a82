// Purpose: waiting for things that happen on other threads, and allowance for
// machines that are busy and builds that run slower: upper bounds are
// multiplied by kSlowdown, lower ones never.
// Thread: any.
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>

#include "core/clock.hpp"

namespace webhooks::test {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || \
    defined(WEBHOOKS_EMULATED)
inline constexpr int kSlowdown = 6;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
inline constexpr int kSlowdown = 6;
#else
inline constexpr int kSlowdown = 2;
#endif
#else
inline constexpr int kSlowdown = 2;
#endif

// Looks until it is so; false when the patience ran out.
template <class Condition>
bool eventually(Condition condition,
                std::chrono::milliseconds patience = std::chrono::seconds(5)) {
  const auto end = std::chrono::steady_clock::now() + patience * kSlowdown;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// Works for this long, by the thread's CPU time.
inline void burn_cpu(std::chrono::milliseconds time) {
  const std::int64_t end = thread_cpu_us() + time.count() * 1000;
  while (thread_cpu_us() < end) {
  }
}

}  // namespace webhooks::test
