// Purpose: the options of an engine.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/result.hpp"
#include "webhooks/url.hpp"

namespace webhooks {

struct EngineOptions {
  UrlPolicy policy;
  // Delay before retry n (from 0) after a failed attempt. At most 12.
  std::vector<std::uint32_t> retry_delays_ms = {10'000, 600'000, 14'400'000};
  std::uint32_t jitter_percent = 20;     // 0..100, both ways
  std::uint32_t park_after_ms = 60'000;  // a longer wait leaves the engine
  std::uint32_t retry_after_max_ms = 6 * 3'600'000;
  std::uint32_t timeout_ms = 15'000;         // the whole attempt, DNS included
  std::uint32_t connect_timeout_ms = 5'000;  // DNS, connect and TLS
  std::uint32_t lane_in_flight_max = 8;
  std::uint32_t lane_rate_per_s = 50;
  std::uint32_t destination_in_flight_max = 64;  // over all its lanes
  std::uint32_t destination_rate_per_s = 200;
  std::uint32_t in_flight_max = 4096;
  // Half for requests in flight, half for idle connections. 0: half of what the
  // process may open, which is also the maximum.
  std::uint32_t descriptors_max = 0;
  std::uint32_t waiting_max = 100'000;  // manual deliveries: a tenth more
  std::uint32_t waiting_bytes_max = 128U << 20;  // of their bodies; likewise
  std::uint32_t lane_waiting_bytes_max = 8U << 20;
  std::uint32_t circuit_failures = 5;  // then one probe at a time; 0: never
  std::uint32_t body_bytes_max = 256 * 1024;  // larger: fails unsent
  std::uint32_t response_body_bytes_max = 16 * 1024;
  std::uint32_t response_header_bytes_max = 64 * 1024;
  std::uint32_t multi_handles = 64;  // 1..64, fewer where descriptors are few
  std::string ca_file;               // PEM; empty: the system's
  std::string user_agent;            // empty: Plausible-Webhooks/<version>
  std::string dns_servers;  // "address:port", by commas; empty: the system's
  // The clock of due_at_ms, next_at_ms and started_at_ms, called by the driving
  // thread. Empty: the system's time. A caller with a clock that never leaps
  // passes it here. Signatures always use the system's time.
  std::function<std::int64_t()> now_ms;
};

// The options that are numbers, by their public names.
struct NumberOption {
  std::string_view name;
  std::uint32_t EngineOptions::*option;
  std::uint32_t min;
  std::uint32_t max;
};
std::span<const NumberOption> number_options() noexcept;

// Error: `invalid_option`; its detail is the option's public name.
Status check_options(const EngineOptions& options);

}  // namespace webhooks
