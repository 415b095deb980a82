#include "webhooks/engine_options.hpp"

#include <algorithm>
#include <string_view>

#include "webhooks/retry_schedule.hpp"

namespace webhooks {
namespace {

constexpr std::uint32_t kDelayMsMax = 7 * 24 * 3'600'000U;
constexpr std::size_t kUserAgentBytesMax = 256;

constexpr std::uint32_t kAny = 0xffffffff;
constexpr NumberOption kNumberOptions[] = {
    {"jitter_percent", &EngineOptions::jitter_percent, 0, 100},
    {"park_after_ms", &EngineOptions::park_after_ms, 0, kAny},
    {"retry_after_max_ms", &EngineOptions::retry_after_max_ms, 0, kDelayMsMax},
    {"timeout_ms", &EngineOptions::timeout_ms, 1, kAny},
    {"connect_timeout_ms", &EngineOptions::connect_timeout_ms, 1, kAny},
    {"lane_in_flight_max", &EngineOptions::lane_in_flight_max, 1, kAny},
    {"lane_rate_per_s", &EngineOptions::lane_rate_per_s, 1, kAny},
    {"destination_in_flight_max", &EngineOptions::destination_in_flight_max, 1,
     kAny},
    {"destination_rate_per_s", &EngineOptions::destination_rate_per_s, 1, kAny},
    {"in_flight_max", &EngineOptions::in_flight_max, 1, kAny},
    {"descriptors_max", &EngineOptions::descriptors_max, 0, kAny},
    {"waiting_max", &EngineOptions::waiting_max, 1, kAny},
    {"waiting_bytes_max", &EngineOptions::waiting_bytes_max, 1 << 20, kAny},
    {"lane_waiting_bytes_max", &EngineOptions::lane_waiting_bytes_max, 1 << 20,
     kAny},
    {"circuit_failures", &EngineOptions::circuit_failures, 0, kAny},
    {"body_bytes_max", &EngineOptions::body_bytes_max, 1, kAny},
    {"response_body_bytes_max", &EngineOptions::response_body_bytes_max, 0,
     kAny},
    {"response_header_bytes_max", &EngineOptions::response_header_bytes_max, 1,
     kAny},
    {"multi_handles", &EngineOptions::multi_handles, 1, 64},
};

}  // namespace

std::span<const NumberOption> number_options() noexcept {
  return kNumberOptions;
}

Status check_options(const EngineOptions& options) {
  const auto& delays = options.retry_delays_ms;
  if (delays.size() > kRetryStepsMax ||
      std::ranges::any_of(
          delays, [](std::uint32_t delay) { return delay > kDelayMsMax; })) {
    return Error{"invalid_option", "retry_delays_ms"};
  }
  for (const NumberOption& number : kNumberOptions) {
    const std::uint32_t value = options.*number.option;
    if (value < number.min || value > number.max) {
      return Error{"invalid_option", std::string(number.name)};
    }
  }
  if (options.user_agent.size() > kUserAgentBytesMax ||
      !std::ranges::all_of(options.user_agent,
                           [](char c) { return c >= ' ' && c <= '~'; })) {
    return Error{"invalid_option", "user_agent"};
  }
  return Ok{};
}

}  // namespace webhooks
