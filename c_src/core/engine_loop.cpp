#include "core/engine_loop.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "core/clock.hpp"

namespace webhooks {
namespace {

// The connections to a destination stay in few multis so that its lanes share
// them, but not so many in one that curl's scan over them shows.
constexpr std::size_t kConnectionsPerMulti = 64;

// Per turn, so that a deleted webhook with a long line delays nobody.
constexpr std::size_t kCancelledMax = 1'000;

// Beyond it the times of the loop would overflow.
constexpr std::int64_t kWaitMsMax = std::int64_t{365} * 24 * 3'600'000;

// The descriptors belong to the whole VM, whose own tables were sized by the
// same limit at its start: raising it here could break the VM's sockets. So we
// live with half of them, unless told otherwise.
std::size_t descriptors_max(std::size_t asked) {
  constexpr std::size_t kUnlimited = 1U << 20;
  rlimit limit{};
  const bool limited =
      getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  const std::size_t all =
      limited ? static_cast<std::size_t>(limit.rlim_cur) : kUnlimited;
  return asked == 0 ? all / 2 : std::min(asked, all);
}

}  // namespace

EngineLoop::Sizes::Sizes(const EngineOptions& options) {
  const std::size_t descriptors = descriptors_max(options.descriptors_max);
  in_flight_max = std::max<std::size_t>(
      1, std::min<std::size_t>(options.in_flight_max, descriptors / 2));
  multis = std::clamp<std::size_t>(descriptors / 128, 1, options.multi_handles);
  idle_connections = static_cast<long>(
      std::clamp<std::size_t>(descriptors / 2 / multis, 8, 128));
  destination_multis = std::clamp<std::size_t>(
      (options.destination_in_flight_max + kConnectionsPerMulti - 1) /
          kConnectionsPerMulti,
      1, multis);
}

Result<std::unique_ptr<EngineLoop>> EngineLoop::create(EngineOptions options,
                                                       Report& report) {
  const Sizes sizes(options);
  auto parts =
      Attempts::Parts::create(options, sizes.multis, sizes.idle_connections);
  if (!parts) {
    return parts.error();
  }
  return std::unique_ptr<EngineLoop>(new EngineLoop(
      std::move(options), sizes, std::move(parts).value(), report));
}

EngineLoop::EngineLoop(EngineOptions options, const Sizes& sizes,
                       Attempts::Parts parts, Report& report)
    : options_(std::move(options)),
      report_(report),
      in_flight_(sizes.in_flight_max),
      scheduler_(options_, in_flight_, timers_, report.waiting),
      attempts_(options_, std::move(parts), sizes.destination_multis,
                scheduler_, in_flight_, timers_, report) {
  if (!options_.now_ms) {
    options_.now_ms = wall_now_ms;
  }
  report.stats.in_flight_max = sizes.in_flight_max;
}

void EngineLoop::refuse(const Delivery& delivery, DeliveryState state,
                        ErrorClass error, std::string detail,
                        std::optional<std::int64_t> next_at_ms) {
  report_.waiting.remove(delivery);
  report_.add_unattempted(delivery, state, error, std::move(detail),
                          options_.now_ms(), next_at_ms);
}

void EngineLoop::cancel(const Delivery& delivery) {
  refuse(delivery, DeliveryState::kCancelled, ErrorClass::kCancelled);
}

void EngineLoop::cancel_removed() {
  for (const Delivery& delivery : scheduler_.take_removed(kCancelledMax)) {
    cancel(delivery);
  }
}

void EngineLoop::close_admission() {
  open_ = false;
  while (scheduler_.has_removed()) {
    cancel_removed();
  }
}

void EngineLoop::take(Delivery delivery) {
  Item* const known = scheduler_.item(delivery.id);
  if (known != nullptr && known->lane->deleted() &&
      known->stage != Item::Stage::kStarted) {
    cancel(scheduler_.take_removed(*known));
  } else if (known != nullptr) {
    // A second copy of a delivery is not sent.
    report_.waiting.remove(delivery);
    if (delivery.manual) {
      scheduler_.hurry(*known, delivery.schedule_from);
    }
    return;
  }
  Lane* const lane = scheduler_.lane(delivery.webhook_id);
  if (lane == nullptr) {
    refuse(delivery, DeliveryState::kCancelled, ErrorClass::kUnknownWebhook);
    return;
  }
  // Not refused by submit, which could only refuse all that follow as well. It
  // fails on record, for no attempt at it would end otherwise.
  if (!delivery.body || delivery.body->size() > options_.body_bytes_max) {
    refuse(delivery, DeliveryState::kFailed, ErrorClass::kInternal,
           delivery.body ? "the payload is larger than body_bytes_max"
                         : "the delivery has no payload");
    return;
  }
  const std::int64_t now_ms = options_.now_ms();
  if (!delivery.manual && !scheduler_.has_room(*lane)) {
    refuse(delivery, DeliveryState::kParked, ErrorClass::kNone, {},
           std::max(delivery.due_at_ms, now_ms + scheduler_.book_ms(*lane)));
    return;
  }
  if (delivery.accepted_at_ms == 0) {
    delivery.accepted_at_ms = now_ms;
  }
  const std::int64_t wait_ms =
      std::min(delivery.due_at_ms, now_ms + kWaitMsMax) - now_ms;
  scheduler_.add(*lane, std::move(delivery), wait_ms);
}

void EngineLoop::fire_timers() {
  while (const auto target = timers_.take_due()) {
    if (Item* const* item = std::get_if<Item*>(&*target)) {
      if ((*item)->stage == Item::Stage::kStarted) {
        attempts_.give_up_name(**item);
      } else {
        scheduler_.resume(**item);
      }
    } else if (Lane* const* lane = std::get_if<Lane*>(&*target)) {
      scheduler_.resume(**lane);
    } else if (Destination* const* destination =
                   std::get_if<Destination*>(&*target)) {
      scheduler_.resume(**destination);
    }
  }
}

std::int64_t EngineLoop::next_wait_us(std::int64_t wait_us) const {
  const std::int64_t next = std::min(attempts_.next_deadline_us(),
                                     open_ ? timers_.next_us() : kNever);
  return next == kNever
             ? wait_us
             : std::clamp<std::int64_t>(next - timers_.now_us(), 0, wait_us);
}

std::size_t EngineLoop::step(std::int64_t wait_us) {
  timers_.advance();
  attempts_.begin_turn();
  cancel_removed();
  if (open_) {
    fire_timers();
    attempts_.start_resolved();
    while (Item* const item = scheduler_.next()) {
      attempts_.start(*item);
    }
    // Who drives comes for what is finished, unless it waits for the rest.
    if (!report_.finished.empty() || scheduler_.has_removed()) {
      wait_us = 0;
    }
  }
  const std::size_t events = attempts_.poll(next_wait_us(wait_us));
  report_.stats.in_flight = in_flight_.taken();
  report_.stats.lanes = scheduler_.lanes();
  ++report_.stats.loop_turns;
  return events;
}

}  // namespace webhooks
