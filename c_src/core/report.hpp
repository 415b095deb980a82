// Purpose: what the loop has to say: finished attempts, and figures.
// Ownership: the engine's; it outlives the loop.
// Thread: loop only, except `waiting`, which submit counts up.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "webhooks/delivery.hpp"
#include "webhooks/engine_stats.hpp"

namespace webhooks {

struct Report {
  std::vector<Attempt> finished;
  EngineStats stats;  // but for `waiting`, `submitted` and `stopped`
  std::atomic<std::uint64_t> waiting{0};

  void add(Attempt attempt) {
    static constexpr std::uint64_t EngineStats::*kByState[] = {
        &EngineStats::delivered, &EngineStats::retried, &EngineStats::parked,
        &EngineStats::failed, &EngineStats::cancelled};
    static_assert(std::size(kByState) == kDeliveryStates);
    ++(stats.*kByState[static_cast<std::size_t>(attempt.state)]);
    stats.attempts += attempt.number > 0 ? 1U : 0U;
    finished.push_back(std::move(attempt));
  }

  // A delivery that ends, or is put off, without an attempt.
  void add_unattempted(const Delivery& delivery, DeliveryState state,
                       ErrorClass error, std::string detail,
                       std::int64_t now_ms,
                       std::optional<std::int64_t> next_at_ms = {}) {
    Attempt attempt;
    attempt.delivery_id = delivery.id;
    attempt.webhook_id = delivery.webhook_id;
    attempt.state = state;
    attempt.error = error;
    attempt.detail = std::move(detail);
    attempt.started_at_ms = now_ms;
    attempt.next_at_ms = next_at_ms;
    add(std::move(attempt));
  }
};

}  // namespace webhooks
