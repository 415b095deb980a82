// Purpose: what the engine has to say: finished attempts, and counters.
// Ownership: the engine's; it outlives the loop.
// Thread: `finished` and add* by who drives; counters are written by the loop
// (`waiting` and `submitted` also by submit) and read by anybody.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "webhooks/delivery.hpp"

namespace webhooks {

struct EngineCounters {
  using Counter = std::atomic<std::uint64_t>;
  Counter in_flight{0};
  Counter waiting{0};
  Counter lanes{0};
  Counter finished_unread{0};
  Counter submitted{0};
  Counter attempts{0};
  std::array<Counter, kDeliveryStates> by_state{};
  Counter connections_opened{0};
  Counter resolver_threads{0};
  Counter resolver_stuck{0};
  Counter loop_turns{0};
};

struct Report {
  std::vector<Attempt> finished;
  EngineCounters counters;

  void add(Attempt attempt) {
    const auto state = static_cast<std::size_t>(attempt.state);
    counters.by_state[state].fetch_add(1, std::memory_order_relaxed);
    if (attempt.number > 0) {
      counters.attempts.fetch_add(1, std::memory_order_relaxed);
    }
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
