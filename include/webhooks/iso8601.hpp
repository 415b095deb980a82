// Purpose: dates and times as ISO 8601 text in the extended format, letter for
// letter as Elixir's `to_iso8601` functions give it.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace webhooks {

// As found in a term: nothing is in range before it has been checked.
struct CalendarDate {
  std::int64_t year = 0;  // -9999..9999, astronomical
  std::int64_t month = 0;
  std::int64_t day = 0;
};

struct ClockTime {
  std::int64_t hour = 0;
  std::int64_t minute = 0;
  std::int64_t second = 0;       // 0..59: leap seconds have no place
  std::int64_t microsecond = 0;  // 0..999999
  std::int64_t precision = 0;    // 0..6 digits of it are shown
};

struct ZoneOffset {
  std::int64_t utc_seconds = 0;  // of the zone's standard time
  std::int64_t std_seconds = 0;  // daylight saving on top of it
  bool is_utc = false;           // the zone is "Etc/UTC": "Z" for no offset
};

// A text under construction. Each call appends one part and says whether its
// value was a possible one; after a false the text is worthless.
class Iso8601Text {
 public:
  bool date(const CalendarDate& date) noexcept;
  bool time(const ClockTime& time) noexcept;
  // The total must be less than a day; its seconds are not shown.
  bool offset(const ZoneOffset& offset) noexcept;
  void separator() noexcept { put('T'); }

  std::string_view view() const noexcept { return {text_.data(), size_}; }

 private:
  void put(char letter) noexcept { text_[size_++] = letter; }
  void padded(std::int64_t value, std::size_t digits) noexcept;

  // "-9999-12-31T23:59:59.999999+23:59" is the longest.
  std::array<char, 40> text_;
  std::size_t size_ = 0;
};

}  // namespace webhooks
