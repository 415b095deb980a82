// Purpose: timers of the loop's objects.
// Ownership: a target owns its Timer, stays where it is while the Timer is
// armed, and cancels it before it dies.
// Thread: loop only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <variant>

#include "core/clock.hpp"

namespace webhooks {

struct Destination;
struct Item;
struct Lane;
using TimerTarget = std::variant<Item*, Lane*, Destination*>;

class Timers;

class Timer {
 public:
  bool armed() const noexcept { return entry_.has_value(); }

 private:
  friend class Timers;
  struct Entry {
    TimerTarget target;
    Timer* timer;
  };
  using Queue = std::multimap<std::int64_t, Entry>;
  std::optional<Queue::iterator> entry_;
};

class Timers {
 public:
  // When the current turn of the loop began.
  std::int64_t now_us() const noexcept { return now_us_; }
  void advance() noexcept { now_us_ = steady_now_us(); }

  void set(Timer& timer, std::int64_t at_us, TimerTarget target) {
    cancel(timer);
    timer.entry_ = queue_.emplace(at_us, Timer::Entry{target, &timer});
  }

  void cancel(Timer& timer) {
    if (timer.entry_) {
      queue_.erase(*timer.entry_);
      timer.entry_.reset();
    }
  }

  // Disarms the first timer that is due.
  std::optional<TimerTarget> take_due() {
    if (next_us() > now_us_) {
      return std::nullopt;
    }
    const Timer::Entry entry = queue_.begin()->second;
    cancel(*entry.timer);
    return entry.target;
  }

  std::int64_t next_us() const noexcept {
    return queue_.empty() ? kNever : queue_.begin()->first;
  }

 private:
  Timer::Queue queue_;
  std::int64_t now_us_ = steady_now_us();
};

}  // namespace webhooks
