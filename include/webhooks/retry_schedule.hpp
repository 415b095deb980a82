// Purpose: when a failed delivery is tried again.
// Source of Retry-After: RFC 9110, section 10.2.3.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace webhooks {

inline constexpr std::size_t kRetryStepsMax = 12;

struct RetrySchedule {
  std::vector<std::uint32_t> delays_ms;
  std::uint32_t jitter_percent = 20;
  std::uint32_t retry_after_max_ms = 6 * 3'600'000;

  // The wait before the next attempt after `failures` (>= 1) failed attempts
  // of this run of the schedule; nullopt: the schedule is used up.
  // `random` is any uniformly distributed number.
  std::optional<std::uint32_t> next_delay_ms(std::uint32_t failures,
                                             std::uint32_t random) const;
  // How long to wait for a receiver that asked for this delay: never shorter,
  // except for the cap.
  std::uint32_t asked_delay_ms(std::int64_t asked_ms,
                               std::uint32_t random) const;
};

// The value of a Retry-After header (seconds or an HTTP date) in milliseconds
// from `now_ms`; nullopt when it is neither. Not negative.
std::optional<std::int64_t> parse_retry_after_ms(std::string_view value,
                                                 std::int64_t now_ms);

}  // namespace webhooks
