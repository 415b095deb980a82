// Purpose: the loop's output: finished attempts, and figures.
// Ownership: the engine's; it outlives the loop.
// Thread: loop only, except `waiting`, which submit counts up as well.
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

// The deliveries that are not started. A shared body counts for each delivery:
// counting it once would cost more than it is worth.
class Waiting {
 public:
  static std::uint64_t bytes_of(const Delivery& delivery) noexcept {
    return delivery.body ? delivery.body->size() : 0;
  }
  void add(std::uint64_t count, std::uint64_t bytes) noexcept {
    count_.fetch_add(count, std::memory_order_relaxed);
    bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  void remove(const Delivery& delivery) noexcept {
    count_.fetch_sub(1, std::memory_order_relaxed);
    bytes_.fetch_sub(bytes_of(delivery), std::memory_order_relaxed);
  }
  void clear() noexcept {
    count_.store(0, std::memory_order_relaxed);
    bytes_.store(0, std::memory_order_relaxed);
  }
  std::uint64_t count() const noexcept {
    return count_.load(std::memory_order_relaxed);
  }
  std::uint64_t bytes() const noexcept {
    return bytes_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> count_{0};
  std::atomic<std::uint64_t> bytes_{0};
};

struct Report {
  std::vector<Attempt> finished;
  std::vector<SlowSlice> slow_slices;
  EngineStats stats;  // but for `waiting*`, `submitted` and `stopped`
  Waiting waiting;

  void note_slice(std::int64_t took_us, const std::string& webhook_id) {
    slow_slices.push_back(
        {webhook_id, static_cast<std::uint64_t>(took_us) / 1000});
    ++stats.slow_slices;
  }

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
    attempt.retry = delivery.retry;
    attempt.state = state;
    attempt.error = error;
    attempt.detail = std::move(detail);
    attempt.started_at_ms = now_ms;
    attempt.next_at_ms = next_at_ms;
    add(std::move(attempt));
  }
};

}  // namespace webhooks
