// Purpose: who may take how many places. Lanes that do not answer hold each
// place until their timeout: by standing they are kept to a share, so that
// those who answer always find room.
// Ownership: plain values; LaneQueue refers to lanes, which leave it before
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

// What the last finished attempt at a lane's URL says of it.
enum class Standing : std::uint8_t {
  kProven,    // it answered, be it with an error
  kUnproven,  // there was none yet
  kFailing,   // no answer
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
  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }

 private:
  std::array<Value, 3> values_{};
};

// The places of one host, or of the engine. Failing lanes have half of them,
// with unproven ones three quarters, everybody all; at least one each.
class Slots {
 public:
  void take(Standing standing) noexcept { ++taken_[standing]; }
  void give_back(Standing standing) noexcept { --taken_[standing]; }

  std::size_t total() const noexcept {
    return taken_[Standing::kProven] + not_answering();
  }

  bool room_for(Standing standing, std::size_t max) const noexcept {
    if (total() >= max) {
      return false;
    }
    if (standing == Standing::kProven) {
      return true;
    }
    if (not_answering() >= share(max * 3 / 4)) {
      return false;
    }
    return standing == Standing::kUnproven ||
           taken_[Standing::kFailing] < share(max / 2);
  }

 private:
  static std::size_t share(std::size_t part) noexcept {
    return std::max<std::size_t>(part, 1);
  }
  std::size_t not_answering() const noexcept {
    return taken_[Standing::kUnproven] + taken_[Standing::kFailing];
  }

  ByStanding<std::size_t> taken_;
};

// Lanes in the order of their tickets, each under its standing, so that those
// whose share is used up are passed over without a look at every one.
class LaneQueue {
 public:
  using Line = std::map<std::uint64_t, Lane*>;

  bool empty() const noexcept {
    return std::all_of(lines_.begin(), lines_.end(),
                       [](const Line& line) { return line.empty(); });
  }
  void add(Lane& lane);
  void remove(const Lane& lane);

  // The one that waits longest among those whose standing `may` go.
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
  ByStanding<Line> lines_;
};

}  // namespace webhooks
