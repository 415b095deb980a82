// Purpose: the delivery engine: queues deliveries in lanes (one per webhook),
// POSTs them over curl, retries, and reports every attempt.
// Ownership: an Engine owns its curl handles, its resolver and all queued
// deliveries; what it reports is moved out to the caller.
// Thread: put_endpoint, delete_endpoint, submit, stats, request_stop: any
// thread, never blocked by the network. run_once and stop: one thread at a time
// (a second one is turned away); they are the only calls that touch curl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/address_policy.hpp"
#include "webhooks/delivery.hpp"
#include "webhooks/resolver.hpp"
#include "webhooks/result.hpp"
#include "webhooks/url.hpp"

namespace webhooks {

struct EngineOptions {
  UrlPolicy policy;
  // Delay before retry n (from 0) after a failed attempt. At most 12.
  std::vector<std::uint32_t> retry_delays_ms = {10'000, 60'000, 300'000};
  std::uint32_t jitter_percent = 20;     // 0..100, both ways
  std::uint32_t park_after_ms = 60'000;  // a longer wait leaves the engine
  std::uint32_t retry_after_max_ms = 6 * 3'600'000;
  std::uint32_t timeout_ms = 15'000;  // the whole attempt, DNS included
  std::uint32_t connect_timeout_ms = 5'000;
  std::uint32_t lane_in_flight_max = 8;
  std::uint32_t lane_rate_per_s = 50;
  std::uint32_t host_in_flight_max = 64;  // over all lanes to one host
  std::uint32_t host_rate_per_s = 200;
  std::uint32_t in_flight_max = 4096;
  // Half for what is in flight, half for idle connections; 0: half of what the
  // process may open. Never more than that.
  std::uint32_t descriptors_max = 0;
  std::uint32_t waiting_max = 100'000;  // manual ones may exceed it by a tenth
  std::uint32_t circuit_failures = 5;   // then one probe at a time; 0: never
  std::uint32_t body_bytes_max = 256 * 1024;  // larger: fails unsent
  std::uint32_t response_body_bytes_max = 16 * 1024;
  std::uint32_t response_header_bytes_max = 64 * 1024;
  std::uint32_t resolver_threads_max = 512;
  std::uint32_t dns_timeout_ms = 5'000;
  std::uint32_t dns_cache_ms = 30'000;
  std::uint32_t multi_handles = 64;  // 1..64, fewer where descriptors are few
  std::string ca_file;               // PEM; empty: the system's
  std::string user_agent;            // empty: Plausible-Webhooks/<version>
  ResolveFunction resolve;           // empty: getaddrinfo
  // What due_at_ms, next_at_ms and started_at_ms are counted by, called by who
  // drives: a clock that never leaps, where the caller has one. Signatures
  // carry the system's time, whatever it is. Empty: that.
  std::function<std::int64_t()> now_ms;
};

struct EngineStats {
  std::uint64_t in_flight = 0;
  std::uint64_t waiting = 0;
  std::uint64_t lanes = 0;
  std::uint64_t finished_unread = 0;  // attempts not yet fetched by run_once
  std::uint64_t in_flight_max = 0;    // in force: less than asked where the
                                      // process may open few descriptors
  std::uint64_t submitted = 0;
  std::uint64_t attempts = 0;
  std::uint64_t delivered = 0;
  std::uint64_t retried = 0;
  std::uint64_t parked = 0;
  std::uint64_t failed = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t connections_opened = 0;
  std::uint64_t resolver_threads = 0;
  std::uint64_t resolver_stuck =
      0;  // lookups past their deadline, still running
  std::uint64_t loop_turns = 0;
  bool stopped = false;
};

class Engine {
 public:
  // Errors: `invalid_option` (detail names it), `ca_file`, `system_limit`.
  static Result<std::unique_ptr<Engine>> create(EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Replaces an endpoint of the same webhook_id; what waits uses the new one.
  // Error: `stopped`.
  Status put_endpoint(Endpoint endpoint);
  // Waiting deliveries end as cancelled; one in flight ends with its attempt.
  Status delete_endpoint(std::string webhook_id);
  // Takes the first n and returns n: fewer than given when the queue is full.
  // Errors: `overloaded` (none taken), `stopped`. `deliveries` is moved from up
  // to n.
  Result<std::size_t> submit(std::vector<Delivery>& deliveries);

  // Drives the loop until there is something to report or max_wait_ms is over,
  // and appends the finished attempts. Errors: `already_driven`, `stopped` (and
  // nothing left to report).
  Status run_once(std::uint32_t max_wait_ms, std::vector<Attempt>& finished);

  // Stops admitting, lets what is in flight finish for drain_ms, then aborts.
  // Returns the ids that are not finished; finished attempts stay to be
  // fetched by run_once. Idempotent. Error: `already_driven`.
  Result<std::vector<std::string>> stop(std::uint32_t drain_ms);

  // Makes a running and every later run_once return soon. Async-signal-unsafe
  // but lock-free: for the owner's death and the exit of the process.
  void request_stop() noexcept;

  EngineStats stats() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace webhooks
