// Purpose: how many places a lane may take. A receiver that does not answer
// holds each place until its timeout. So the share of a lane depends on its
// standing, and lanes whose receivers answer always find a place.
// Ownership: plain values; a LaneQueue refers to lanes, which leave it before
// they die.
// Thread: loop only.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

namespace webhooks {

struct Lane;

// What the last finished attempt at a lane's URL says about the receiver.
enum class Standing : std::uint8_t {
  kProven,    // it answered, be it with an error
  kUnproven,  // no attempt has finished yet
  kFailing,   // it did not answer
};
inline constexpr std::array<Standing, 3> kStandings = {
    Standing::kProven, Standing::kUnproven, Standing::kFailing};

template <class Value>
class ByStanding {
 public:
  Value& operator[](Standing standing) {
    return values_[static_cast<std::size_t>(standing)];
  }
  const Value& operator[](Standing standing) const {
    return values_[static_cast<std::size_t>(standing)];
  }

 private:
  std::array<Value, 3> values_{};
};

// The places of a destination, or of the engine. Failing lanes share half of
// them, failing and unproven lanes together three quarters; at least one each.
// The last quarter is for lanes that have less than their fair share, and of it
// the last half for those that have none: one that answers soon finds a place
// beside others that hold theirs for long.
class Places {
 public:
  explicit Places(std::size_t max) noexcept : max_(max) {}

  std::size_t max() const noexcept { return max_; }
  std::size_t taken() const noexcept {
    return taken_[Standing::kProven] + not_answering();
  }

  void take(Standing standing) noexcept { ++taken_[standing]; }
  void give_back(Standing standing) noexcept { --taken_[standing]; }

  bool room_for(Standing standing) const noexcept {
    if (taken() >= max_) {
      return false;
    }
    if (standing == Standing::kProven) {
      return true;
    }
    if (not_answering() >= std::max<std::size_t>(max_ * 3 / 4, 1)) {
      return false;
    }
    return standing == Standing::kUnproven ||
           taken_[Standing::kFailing] < std::max<std::size_t>(max_ / 2, 1);
  }

  // May a lane that holds so many places take one more, where so many lanes
  // want some?
  bool fair_for(std::size_t held, std::size_t lanes) const noexcept {
    if (lanes < 2 || held == 0 || taken() * 4 < max_ * 3) {
      return true;
    }
    return taken() < max_ - max_ / 8 && held < max_ / lanes;
  }

 private:
  std::size_t not_answering() const noexcept {
    return taken_[Standing::kUnproven] + taken_[Standing::kFailing];
  }

  std::size_t max_;
  ByStanding<std::size_t> taken_;
};

// Lanes in the order of their tickets, in one line for each standing, so that
// a used-up share is passed over without a look at every lane that waits for
// it.
class LaneQueue {
 public:
  bool empty() const {
    return first([](Standing) { return true; }) == nullptr;
  }
  void add(Lane& lane);
  void remove(const Lane& lane);

  // The lane that has waited longest among those whose standing `may` go.
  template <class May>
  Lane* first(May may) const {
    const Line::value_type* best = nullptr;
    for (const Standing standing : kStandings) {
      const Line& line = lines_[standing];
      if (line.empty() || !may(standing)) {
        continue;
      }
      if (best == nullptr || line.begin()->first < best->first) {
        best = &*line.begin();
      }
    }
    return best == nullptr ? nullptr : best->second;
  }

 private:
  using Line = std::map<std::uint64_t, Lane*>;
  ByStanding<Line> lines_;
};

}  // namespace webhooks
