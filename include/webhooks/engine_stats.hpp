// Purpose: counters and gauges of an engine.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstdint>

namespace webhooks {

struct EngineStats {
  std::uint64_t in_flight = 0;
  std::uint64_t waiting = 0;
  std::uint64_t waiting_bytes = 0;  // of their bodies
  std::uint64_t lanes = 0;
  std::uint64_t finished_unread = 0;  // attempts not yet fetched by run_once
  // The effective values, lower than the options if the process may open few
  // descriptors.
  std::uint64_t in_flight_max = 0;
  std::uint64_t submitted = 0;
  std::uint64_t attempts = 0;
  std::uint64_t delivered = 0;
  std::uint64_t retried = 0;
  std::uint64_t parked = 0;
  std::uint64_t failed = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t connections_opened = 0;
  std::uint64_t lookups = 0;  // names being looked up
  std::uint64_t loop_turns = 0;
  std::uint64_t slow_slices = 0;  // see SlowSlice
  bool stopped = false;
};

}  // namespace webhooks
