// Purpose: whatever a receiver writes into Retry-After, the wait is neither
// negative nor longer than the parser's cap.
// Ownership: nothing outlives a run.
// Thread: one.
#include <algorithm>

#include "require.hpp"
#include "webhooks/retry_schedule.hpp"

using namespace webhooks_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  constexpr std::int64_t kNowMs = 1'795'428'930'000;
  constexpr std::int64_t kWaitMsMax = 1'000'000'000'000;
  const std::string_view value = text_of(data, size);
  const auto wait_ms = webhooks::parse_retry_after_ms(value, kNowMs);
  if (!wait_ms) return 0;
  require(*wait_ms >= 0 && *wait_ms <= kWaitMsMax);
  // With a later clock the wait is not longer.
  const auto later = webhooks::parse_retry_after_ms(value, kNowMs + 60'000);
  require(later && *later <= *wait_ms);
  constexpr std::uint32_t kObeyedMsMax = 21'600'000;
  const webhooks::RetrySchedule schedule{{10'000}, 20, kObeyedMsMax};
  for (const std::uint32_t random : {0U, 0xffffffffU}) {
    const std::uint32_t delay_ms = schedule.asked_delay_ms(*wait_ms, random);
    require(delay_ms >= std::min<std::int64_t>(*wait_ms, kObeyedMsMax));
    require(delay_ms <= kObeyedMsMax + kObeyedMsMax / 5);
  }
  return 0;
}
