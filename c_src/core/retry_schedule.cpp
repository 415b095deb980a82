#include "webhooks/retry_schedule.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <limits>
#include <string>

#include "core/ascii.hpp"

namespace webhooks {
namespace {

// Spreads many lanes that were told the same moment, without making one of
// them wait noticeably longer than it was told.
constexpr std::uint64_t kRetryAfterJitterMsMax = 5'000;

std::uint64_t percent_of(std::uint64_t value, std::uint32_t percent) {
  return value * percent / 100;
}

// The longest delays plus their jitter do not fit; wrapped around they would
// be the shortest.
std::uint32_t saturated(std::uint64_t delay_ms) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(
      delay_ms, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

std::optional<std::uint32_t> RetrySchedule::next_delay_ms(
    std::uint32_t failures, std::uint32_t random) const {
  if (failures == 0 || failures > delays_ms.size()) {
    return std::nullopt;
  }
  const std::uint64_t step = delays_ms[failures - 1];
  const std::uint64_t spread = percent_of(step, jitter_percent);
  return saturated(step - spread + random % (2 * spread + 1));
}

std::uint32_t RetrySchedule::asked_delay_ms(std::int64_t asked_ms,
                                            std::uint32_t random) const {
  const auto told = static_cast<std::uint64_t>(
      std::clamp<std::int64_t>(asked_ms, 0, std::int64_t{retry_after_max_ms}));
  const std::uint64_t spread =
      std::min(percent_of(told, jitter_percent), kRetryAfterJitterMsMax);
  return saturated(told + random % (spread + 1));
}

std::optional<std::int64_t> parse_retry_after_ms(std::string_view value,
                                                 std::int64_t now_ms) {
  value = trim(value);
  if (value.empty() || value.size() > 64) {
    return std::nullopt;
  }
  // Any number of digits is valid, and any year. Beyond this it is capped
  // anyway.
  constexpr std::int64_t kWaitMsMax = 1'000'000'000'000;
  if (std::ranges::all_of(value, is_digit)) {
    constexpr std::int64_t kSecondsMax = kWaitMsMax / 1000;
    const auto seconds = to_integer<std::int64_t>(value).value_or(kSecondsMax);
    return std::min(seconds, kSecondsMax) * 1000;
  }
  // An HTTP date starts with the day's name; curl_getdate would also take
  // "12:00" or "2026", which is not what the header says.
  const char first = value.front();
  if (first != 'M' && first != 'T' && first != 'W' && first != 'F' &&
      first != 'S') {
    return std::nullopt;
  }
  const time_t date = curl_getdate(std::string(value).c_str(), nullptr);
  if (date < 0) {
    return std::nullopt;
  }
  const std::int64_t from_now_s = std::int64_t{date} - now_ms / 1000;
  if (from_now_s > kWaitMsMax / 1000) {
    return kWaitMsMax;
  }
  return std::max<std::int64_t>(from_now_s * 1000 - now_ms % 1000, 0);
}

}  // namespace webhooks
