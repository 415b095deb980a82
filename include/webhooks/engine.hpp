// Purpose: the delivery engine: queues deliveries in lanes (one per webhook),
// POSTs them over curl, retries, and reports every attempt.
// Ownership: an Engine owns its curl handles, its resolver and all queued
// deliveries; what it reports is moved out to the caller.
// Thread: put_endpoint, delete_endpoint, submit, stats, slow_slices,
// request_stop: any thread, never blocked by the network. run_once and stop:
// one thread at a time (a second one is turned away); they are the only calls
// that touch curl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "webhooks/delivery.hpp"
#include "webhooks/engine_options.hpp"
#include "webhooks/engine_stats.hpp"
#include "webhooks/result.hpp"

namespace webhooks {

class Engine {
 public:
  // Errors: `invalid_option` (detail names it), `ca_file`, `dns_servers`,
  // `system_limit`.
  static Result<std::unique_ptr<Engine>> create(EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Replaces an endpoint of the same webhook_id; what waits uses the new one.
  // Error: `stopped`.
  Status put_endpoint(Endpoint endpoint);
  // Waiting deliveries end as cancelled, a thousand per turn of the loop. A
  // delivery in flight ends with its attempt.
  Status delete_endpoint(std::string webhook_id);
  // Takes the first n and returns n: fewer than given when the queue is full
  // (by number or by bytes) or memory runs out. Errors: `overloaded` (none
  // taken), `stopped`. `deliveries` is moved from up to n.
  Result<std::size_t> submit(std::vector<Delivery>& deliveries);

  // Drives the loop until there is something to report or max_wait_ms is over,
  // and appends the finished attempts. Errors: `already_driven`, `stopped` (and
  // nothing left to report).
  Status run_once(std::uint32_t max_wait_ms, std::vector<Attempt>& finished);

  // The slices since the last call that took more than 250 ms of CPU time: the
  // first hundred of them.
  std::vector<SlowSlice> slow_slices();

  // Stops admitting, gives requests in flight drain_ms to finish, then aborts.
  // Returns the ids that are not finished. run_once still returns finished
  // attempts. Idempotent. Error: `already_driven`.
  Result<std::vector<std::string>> stop(std::uint32_t drain_ms);

  // Makes a running and every later run_once return soon: for the owner's death
  // and the exit of the process. Does not wait for the loop; may wait for a
  // submit that is running. Async-signal-unsafe.
  void request_stop() noexcept;

  EngineStats stats() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace webhooks
