// The part of EngineLoop that says whose turn it is: places in a lane, on a
// host and in the engine.
#include <algorithm>

#include "core/engine_loop.hpp"

namespace webhooks {
namespace {

constexpr std::size_t kPressureFrom = 512;
// A lane always has room for so many.
constexpr std::size_t kLaneWaitingMin = 256;
// Shorter, and the store would bring back at once what has just left.
constexpr std::int64_t kPutOffMsMin = 1'000;

}  // namespace

void LaneQueue::add(Lane& lane) {
  lines_[lane.standing].emplace(lane.ticket, &lane);
}

void LaneQueue::remove(const Lane& lane) {
  lines_[lane.standing].erase(lane.ticket);
}

std::uint32_t EngineLoop::rate_of(const Endpoint& endpoint) const {
  return endpoint.rate_per_s != 0 ? endpoint.rate_per_s
                                  : options_.lane_rate_per_s;
}

// A lane holds what it can begin before park_after_ms, and not more than what
// all others leave free: a few that get more than they may send would otherwise
// fill the engine, and everybody else would wait in the store behind them.
bool EngineLoop::has_room(const Lane& lane) const {
  const std::size_t held = lane.ready.size() + lane.away.size() - lane.busy;
  if (held < kLaneWaitingMin) {
    return true;
  }
  const std::uint64_t rate = rate_of(lane.endpoint);
  const std::uint64_t waiting =
      counters_.waiting.load(std::memory_order_relaxed);
  return held < rate * options_.park_after_ms / 1000 &&
         held + waiting <= options_.waiting_max;
}

// Parked without an attempt. Each one gets the time at which the lane's rate
// would let it go, so that the store brings back no more than can be sent.
void EngineLoop::put_off(Lane& lane, const Delivery& delivery) {
  const std::int64_t now = EventLoop::now_us();
  const std::int64_t soonest_ms =
      std::max<std::int64_t>(options_.park_after_ms, kPutOffMsMin);
  lane.booked_until_us =
      std::max(lane.booked_until_us, now + soonest_ms * 1000) +
      1'000'000 / rate_of(lane.endpoint);
  Attempt attempt = without_attempt(delivery, DeliveryState::kParked);
  attempt.next_at_ms =
      std::max(delivery.due_at_ms,
               attempt.started_at_ms + (lane.booked_until_us - now) / 1000);
  counters_.parked.fetch_add(1, std::memory_order_relaxed);
  finished_.push_back(std::move(attempt));
}

// Fewer slots for a lane that only fails (one probe at a time), and for
// everybody when the engine fills up, so that a crowd of endpoints that never
// answer cannot take all places.
std::uint32_t EngineLoop::limit_of(const Lane& lane) const {
  std::uint32_t limit = lane.endpoint.in_flight_max != 0
                            ? lane.endpoint.in_flight_max
                            : options_.lane_in_flight_max;
  if (options_.circuit_failures != 0 &&
      lane.failures_in_a_row >= options_.circuit_failures) {
    return 1;
  }
  const std::size_t in_flight = slots_.total();
  if (in_flight_max_ >= kPressureFrom) {
    if (in_flight * 8 >= in_flight_max_ * 7) {
      return 1;
    }
    if (in_flight * 4 >= in_flight_max_ * 3) {
      limit = std::min(limit, 2U);
    }
    if (in_flight * 2 >= in_flight_max_) {
      limit = std::min(limit, 4U);
    }
  }
  return limit;
}

void EngineLoop::enqueue(Lane& lane) {
  if (lane.queued || lane.waits_for_host || lane.timed || lane.deleted) {
    return;
  }
  if (lane.ready.empty() || lane.busy >= limit_of(lane)) {
    return;
  }
  lane.ticket = ++tickets_;
  lane.queued = true;
  run_queue_.add(lane);
}

// Out of whichever queue it is in; what it had in hand goes back.
void EngineLoop::dequeue(Lane& lane) {
  if (lane.waits_for_host) {
    lane.host->waiting.remove(lane);
    lane.waits_for_host = false;
  }
  if (lane.queued) {
    run_queue_.remove(lane);
    lane.queued = false;
  }
  if (lane.host->granted[lane.standing] == &lane) {
    give_back_grant(lane);
  }
}

// Queues are kept by standing, so a lane that waits changes over, with its
// ticket; a slot granted to it was another share's, and has to be asked for
// anew.
void EngineLoop::set_standing(Lane& lane, Standing standing) {
  if (lane.standing == standing) {
    return;
  }
  if (!lane.queued && !lane.waits_for_host) {
    lane.standing = standing;
    return;
  }
  Host& host = *lane.host;
  const bool at_host =
      lane.waits_for_host || host.granted[lane.standing] == &lane;
  dequeue(lane);
  lane.standing = standing;
  if (at_host) {
    wait_for_host(lane);
    return;
  }
  lane.queued = true;
  run_queue_.add(lane);
}

void EngineLoop::wait_for_host(Lane& lane) {
  lane.waits_for_host = true;
  lane.host->waiting.add(lane);
  release_host(*lane.host);
}

void EngineLoop::give_back_grant(Lane& lane) {
  Host& host = *lane.host;
  host.granted[lane.standing] = nullptr;
  host.slots.give_back(lane.standing);
  host.bucket.give_back();
}

// Lets the first waiting lane of each standing go, one at a time: it passes the
// turn on when it has started something or had nothing to start. Slot and token
// are taken for it now: it may have to wait for its share of the engine, and
// must not find that others were faster when its turn comes.
void EngineLoop::release_host(Host& host) {
  for (;;) {
    Lane* const lane = host.waiting.first([&](Standing standing) {
      return host.granted[standing] == nullptr &&
             host.slots.room_for(standing, options_.host_in_flight_max);
    });
    if (lane == nullptr) {
      return;
    }
    if (!host.bucket.available(now_us_)) {
      set_host_timer(host, host.bucket.next_us());
      return;
    }
    host.waiting.remove(*lane);
    lane->waits_for_host = false;
    host.bucket.take();
    host.slots.take(lane->standing);
    host.granted[lane->standing] = lane;
    lane->queued = true;
    run_queue_.add(*lane);
  }
}

// Without waiting; who waits goes first.
bool EngineLoop::take_host_slot(Lane& lane) {
  Host& host = *lane.host;
  if (!host.waiting.empty() ||
      !host.slots.room_for(lane.standing, options_.host_in_flight_max) ||
      !host.bucket.available(now_us_)) {
    return false;
  }
  host.bucket.take();
  host.slots.take(lane.standing);
  return true;
}

// True: something was started, and the lane may have more.
bool EngineLoop::start_next(Lane& lane) {
  Host& host = *lane.host;
  const bool granted = host.granted[lane.standing] == &lane;
  bool starts = false;
  if (lane.ready.empty() || lane.busy >= limit_of(lane)) {
    // Nothing to do now; the lane's own next event brings it back.
  } else if (!lane.bucket.available(now_us_)) {
    set_lane_timer(lane, lane.bucket.next_us());
  } else if (granted) {
    host.granted[lane.standing] = nullptr;
    starts = true;
  } else if (take_host_slot(lane)) {
    starts = true;
  } else {
    wait_for_host(lane);
    return false;
  }
  if (starts) {
    lane.bucket.take();
    Item& item = lane.ready.front();
    lane.away.splice(lane.away.end(), lane.ready, item.self);
    start(item);
  } else if (granted) {
    give_back_grant(lane);
  }
  if (granted) {
    release_host(host);
  }
  return starts;
}

// Of those whose share of the engine has room, who waits longest.
Item* EngineLoop::next_resolved() {
  std::deque<Item*>* first = nullptr;
  for (const Standing standing : kStandings) {
    std::deque<Item*>& line = resolved_[standing];
    if (line.empty() || !slots_.room_for(standing, in_flight_max_)) {
      continue;
    }
    if (first == nullptr ||
        line.front()->resolved_us < first->front()->resolved_us) {
      first = &line;
    }
  }
  if (first == nullptr) {
    return nullptr;
  }
  Item* const item = first->front();
  first->pop_front();
  return item;
}

void EngineLoop::pump() {
  if (!open_) {
    return;
  }
  while (Item* const next = next_resolved()) {
    Item& item = *next;
    // That there was no place is not the receiver's doing: the attempt's time
    // stood still.
    const std::int64_t waited_us = now_us_ - item.resolved_us;
    item.started_us += waited_us;
    item.started_ms += waited_us / 1000;
    resolve(item);
  }
  const auto may_start = [this](Standing standing) {
    return slots_.room_for(standing, in_flight_max_);
  };
  while (Lane* const lane = run_queue_.first(may_start)) {
    run_queue_.remove(*lane);
    lane->queued = false;
    if (start_next(*lane)) {
      enqueue(*lane);
    }
  }
}

}  // namespace webhooks
