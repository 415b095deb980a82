// Purpose: the part of the engine that one thread drives: takes deliveries in
// and brings scheduler, attempts and timers together.
// Ownership: owns all three. The report is the engine's and outlives it.
// Thread: loop only, except wake().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/attempts.hpp"
#include "core/places.hpp"
#include "core/report.hpp"
#include "core/scheduler.hpp"
#include "core/timers.hpp"
#include "webhooks/engine_options.hpp"

namespace webhooks {

class EngineLoop {
 public:
  // Errors: `ca_file`, `dns_servers`, `system_limit`.
  static Result<std::unique_ptr<EngineLoop>> create(EngineOptions options,
                                                    Report& report);
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  void put(Endpoint endpoint) { scheduler_.put(std::move(endpoint)); }
  void remove(const std::string& webhook_id) { scheduler_.remove(webhook_id); }
  // It is counted as waiting.
  void take(Delivery delivery);

  // Answers of the resolver, timers, starts, then sockets: waits for these for
  // at most `wait_us`. Returns how many socket events there were.
  std::size_t step(std::int64_t wait_us);
  void wake() noexcept { attempts_.wake(); }

  // From now on nothing is started; what is in flight goes on.
  void close_admission();
  std::vector<std::string> unfinished() const {
    return scheduler_.delivery_ids();
  }
  bool has_in_flight() const noexcept { return in_flight_.taken() > 0; }

 private:
  // How the process's descriptors are shared out.
  struct Sizes {
    explicit Sizes(const EngineOptions& options);
    std::size_t in_flight_max;
    std::size_t multis;
    long idle_connections;           // per multi
    std::size_t destination_multis;  // for the connections to a destination
  };

  EngineLoop(EngineOptions options, const Sizes& sizes, Attempts::Parts parts,
             Report& report);
  // It ends, or is put off, without an attempt.
  void refuse(const Delivery& delivery, DeliveryState state, ErrorClass error,
              std::string detail = {},
              std::optional<std::int64_t> next_at_ms = {});
  void cancel(const Delivery& delivery);
  void cancel_removed();
  void fire_timers();
  std::int64_t next_wait_us(std::int64_t wait_us) const;

  EngineOptions options_;
  Report& report_;
  bool open_ = true;
  Timers timers_;
  Places in_flight_;
  Scheduler scheduler_;
  Attempts attempts_;
};

}  // namespace webhooks
