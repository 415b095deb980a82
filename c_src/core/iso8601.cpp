// Purpose: range checks and fixed-width digits of dates and times.
// Ownership: plain values.
// Thread: any.
#include "webhooks/iso8601.hpp"

namespace webhooks {
namespace {

constexpr std::int64_t kDaySeconds = 86'400;

constexpr bool within(std::int64_t value, std::int64_t low,
                      std::int64_t high) noexcept {
  return value >= low && value <= high;
}

constexpr std::int64_t days_in_month(std::int64_t year,
                                     std::int64_t month) noexcept {
  constexpr std::array<std::int64_t, 12> kDays = {31, 28, 31, 30, 31, 30,
                                                  31, 31, 30, 31, 30, 31};
  // The year may be negative; a remainder of zero has no sign.
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  return month == 2 && leap ? 29 : kDays[static_cast<std::size_t>(month - 1)];
}

}  // namespace

void Iso8601Text::padded(std::int64_t value, std::size_t digits) noexcept {
  for (std::size_t i = digits; i-- > 0; value /= 10) {
    text_[size_ + i] = static_cast<char>('0' + value % 10);
  }
  size_ += digits;
}

bool Iso8601Text::date(const CalendarDate& date) noexcept {
  if (!within(date.year, -9999, 9999) || !within(date.month, 1, 12) ||
      !within(date.day, 1, days_in_month(date.year, date.month))) {
    return false;
  }
  if (date.year < 0) {
    put('-');
  }
  padded(date.year < 0 ? -date.year : date.year, 4);
  put('-');
  padded(date.month, 2);
  put('-');
  padded(date.day, 2);
  return true;
}

bool Iso8601Text::time(const ClockTime& time) noexcept {
  if (!within(time.hour, 0, 23) || !within(time.minute, 0, 59) ||
      !within(time.second, 0, 59) || !within(time.microsecond, 0, 999'999) ||
      !within(time.precision, 0, 6)) {
    return false;
  }
  padded(time.hour, 2);
  put(':');
  padded(time.minute, 2);
  put(':');
  padded(time.second, 2);
  if (time.precision == 0) {
    return true;
  }
  put('.');
  padded(time.microsecond, 6);
  size_ -= static_cast<std::size_t>(6 - time.precision);
  return true;
}

bool Iso8601Text::offset(const ZoneOffset& offset) noexcept {
  // Each alone first: the sum of two wild numbers could overflow.
  if (!within(offset.utc_seconds, -kDaySeconds, kDaySeconds) ||
      !within(offset.std_seconds, -kDaySeconds, kDaySeconds)) {
    return false;
  }
  if (offset.is_utc && offset.utc_seconds == 0 && offset.std_seconds == 0) {
    put('Z');
    return true;
  }
  const std::int64_t total = offset.utc_seconds + offset.std_seconds;
  if (!within(total, 1 - kDaySeconds, kDaySeconds - 1)) {
    return false;
  }
  const std::int64_t seconds = total < 0 ? -total : total;
  put(total < 0 ? '-' : '+');
  padded(seconds / 3600, 2);
  put(':');
  padded(seconds % 3600 / 60, 2);
  return true;
}

}  // namespace webhooks
