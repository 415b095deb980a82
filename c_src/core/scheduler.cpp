#include "core/scheduler.hpp"

#include <algorithm>
#include <utility>

namespace webhooks {
namespace {

// From so many places on, a filling engine lowers the limit of each lane.
constexpr std::size_t kPressureFrom = 512;
constexpr std::size_t kLaneWaitingMin = 256;  // every lane has room for these
// With a shorter wait the store would bring back at once what has just left.
constexpr std::int64_t kPutOffMsMin = 1'000;

// Any answer proves a receiver, for it frees the place; an answer that never
// ends does not. A fault of ours says nothing of the receiver.
Standing standing_after(ErrorClass error, Standing before) {
  switch (error) {
    case ErrorClass::kNone:
    case ErrorClass::kHttpStatus:
    case ErrorClass::kRedirect:
    case ErrorClass::kGone:
    case ErrorClass::kResponseTooLarge:
      return Standing::kProven;
    case ErrorClass::kInternal:
    case ErrorClass::kCancelled:
    case ErrorClass::kUnknownWebhook:
      return before;
    default:
      return Standing::kFailing;
  }
}

std::list<Item>& list_of(Item& item) {
  return item.stage == Item::Stage::kReady ? item.lane->ready : item.lane->away;
}

}  // namespace

void LaneQueue::add(Lane& lane) {
  lines_[lane.standing].emplace(lane.ticket, &lane);
}

void LaneQueue::remove(const Lane& lane) {
  lines_[lane.standing].erase(lane.ticket);
}

Lane* Scheduler::lane(const std::string& webhook_id) const {
  const auto found = by_webhook_.find(webhook_id);
  return found == by_webhook_.end() ? nullptr : found->second;
}

Item* Scheduler::item(const std::string& delivery_id) const {
  const auto found = items_.find(delivery_id);
  return found == items_.end() ? nullptr : found->second;
}

std::vector<std::string> Scheduler::delivery_ids() const {
  std::vector<std::string> ids;
  ids.reserve(items_.size());
  for (const auto& item : items_) {
    ids.emplace_back(item.first);
  }
  return ids;
}

std::uint32_t Scheduler::rate_of(const Endpoint& endpoint) const {
  return endpoint.rate_per_s != 0 ? endpoint.rate_per_s
                                  : options_.lane_rate_per_s;
}

TokenBucket Scheduler::bucket_of(const Endpoint& endpoint) const {
  const std::uint32_t rate = rate_of(endpoint);
  return {rate, rate, timers_.now_us()};
}

Destination& Scheduler::destination_of(const std::string& name) {
  const auto [entry, is_new] = destinations_.try_emplace(
      name, options_.destination_in_flight_max, options_.destination_rate_per_s,
      timers_.now_us());
  if (is_new) {
    entry->second.name = &entry->first;
  }
  return entry->second;
}

void Scheduler::attach(Lane& lane) {
  lane.destination = &destination_of(lane.endpoint.url.host);
  ++lane.destination->lanes;
  lane.parsed_url.reset();
}

// Takes the lane out of every queue; its items stay.
void Scheduler::detach(Lane& lane) {
  Destination& destination = *lane.destination;
  leave_queue(lane);
  --destination.lanes;
  lane.destination = nullptr;
  serve(destination);
}

void Scheduler::put(Endpoint endpoint) {
  Lane* const known = lane(endpoint.webhook_id);
  if (known == nullptr) {
    const TokenBucket bucket = bucket_of(endpoint);
    Lane& lane = lanes_.emplace_front(std::move(endpoint), bucket);
    lane.self = lanes_.begin();
    by_webhook_.emplace(lane.endpoint.webhook_id, &lane);
    attach(lane);
    return;
  }
  Lane& lane = *known;
  detach(lane);
  if (lane.endpoint.rate_per_s != endpoint.rate_per_s) {
    lane.bucket = bucket_of(endpoint);
  }
  if (lane.endpoint.url.text != endpoint.url.text) {
    lane.failures_in_a_row = 0;
    lane.standing = Standing::kUnproven;
    ++lane.url_changes;
  }
  lane.endpoint = std::move(endpoint);
  attach(lane);
  enqueue(lane);
}

std::vector<Delivery> Scheduler::remove(const std::string& webhook_id) {
  std::vector<Delivery> waiting;
  Lane* const found = lane(webhook_id);
  if (found == nullptr) {
    return waiting;
  }
  by_webhook_.erase(webhook_id);
  detach(*found);
  for (std::list<Item>* items : {&found->ready, &found->away}) {
    for (auto it = items->begin(); it != items->end();) {
      Item& item = *it++;
      if (item.stage != Item::Stage::kStarted) {
        waiting.push_back(item.delivery);
        erase(item);
      }
    }
  }
  if (found->started == 0) {
    lanes_.erase(found->self);
  }
  return waiting;
}

bool Scheduler::has_room(const Lane& lane) const {
  const std::size_t held = lane.ready.size() + lane.away.size() - lane.started;
  if (held < kLaneWaitingMin) {
    return true;
  }
  const std::uint64_t rate = rate_of(lane.endpoint);
  return held < rate * options_.park_after_ms / 1000 &&
         held + waiting_.load(std::memory_order_relaxed) <=
             options_.waiting_max;
}

std::int64_t Scheduler::book_ms(Lane& lane) const {
  const std::int64_t now = steady_now_us();
  const std::int64_t soonest_ms =
      std::max<std::int64_t>(options_.park_after_ms, kPutOffMsMin);
  lane.booked_until_us =
      std::max(lane.booked_until_us, now + soonest_ms * 1000) +
      1'000'000 / rate_of(lane.endpoint);
  return (lane.booked_until_us - now) / 1000;
}

void Scheduler::add(Lane& lane, Delivery delivery, std::int64_t wait_ms) {
  const auto at = delivery.manual ? lane.ready.begin() : lane.ready.end();
  const auto self = lane.ready.emplace(at);
  Item& item = *self;
  item.delivery = std::move(delivery);
  item.lane = &lane;
  item.self = self;
  items_.emplace(item.delivery.id, &item);
  if (wait_ms > 0) {
    delay(item, wait_ms);
  } else {
    enqueue(lane);
  }
}

void Scheduler::hurry(Item& item, std::uint32_t schedule_from) {
  item.delivery.schedule_from =
      std::max(item.delivery.schedule_from, schedule_from);
  item.delivery.manual = true;
  if (item.stage == Item::Stage::kDelayed) {
    resume(item);
  }
  if (item.stage == Item::Stage::kReady) {
    std::list<Item>& ready = item.lane->ready;
    ready.splice(ready.begin(), ready, item.self);
  }
}

void Scheduler::move(Item& item, Item::Stage stage) {
  std::list<Item>& from = list_of(item);
  item.stage = stage;
  std::list<Item>& to = list_of(item);
  to.splice(to.end(), from, item.self);
}

void Scheduler::erase(Item& item) {
  timers_.cancel(item.timer);
  items_.erase(item.delivery.id);
  list_of(item).erase(item.self);
}

void Scheduler::delay(Item& item, std::int64_t wait_ms) {
  move(item, Item::Stage::kDelayed);
  // The turn's own time is as old as its wait for sockets.
  timers_.set(item.timer, steady_now_us() + wait_ms * 1000, &item);
}

void Scheduler::resume(Item& item) {
  timers_.cancel(item.timer);
  move(item, Item::Stage::kReady);
  enqueue(*item.lane);
}

void Scheduler::resume(Lane& lane) {
  lane.waits = Lane::Waits::kNot;
  enqueue(lane);
}

// One place for a lane that only fails: it probes. Few for everybody when the
// engine fills up, so that a crowd of endpoints that never answer cannot take
// all places.
std::uint32_t Scheduler::limit_of(const Lane& lane) const {
  if (options_.circuit_failures != 0 &&
      lane.failures_in_a_row >= options_.circuit_failures) {
    return 1;
  }
  const std::uint32_t limit = lane.endpoint.in_flight_max != 0
                                  ? lane.endpoint.in_flight_max
                                  : options_.lane_in_flight_max;
  const std::size_t taken = in_flight_.taken();
  if (in_flight_.max() < kPressureFrom || taken * 2 < in_flight_.max()) {
    return limit;
  }
  if (taken * 4 < in_flight_.max() * 3) {
    return std::min(limit, 4U);
  }
  return taken * 8 < in_flight_.max() * 7 ? std::min(limit, 2U) : 1;
}

bool Scheduler::may_start(const Lane& lane) const {
  return !lane.ready.empty() && lane.started < limit_of(lane);
}

void Scheduler::enqueue(Lane& lane) {
  if (lane.waits != Lane::Waits::kNot || lane.deleted() || !may_start(lane)) {
    return;
  }
  lane.ticket = ++tickets_;
  queue_for_engine(lane, Lane::Waits::kForEngine);
}

void Scheduler::queue_for_engine(Lane& lane, Lane::Waits waits) {
  lane.waits = waits;
  run_queue_.add(lane);
}

void Scheduler::queue_for_destination(Lane& lane) {
  lane.waits = Lane::Waits::kForDestination;
  lane.destination->waiting.add(lane);
  serve(*lane.destination);
}

void Scheduler::leave_queue(Lane& lane) {
  Destination& destination = *lane.destination;
  switch (std::exchange(lane.waits, Lane::Waits::kNot)) {
    case Lane::Waits::kNot:
      break;
    case Lane::Waits::kForEngine:
      run_queue_.remove(lane);
      break;
    case Lane::Waits::kGranted:
      run_queue_.remove(lane);
      destination.granted[lane.standing] = nullptr;
      give_back_place(destination, lane.standing);
      break;
    case Lane::Waits::kForDestination:
      destination.waiting.remove(lane);
      break;
    case Lane::Waits::kForToken:
      timers_.cancel(lane.timer);
      break;
  }
}

// Queues are kept by standing, so a lane that waits changes over with its
// ticket. A place that was granted to it came from another share, so the lane
// has to ask anew.
void Scheduler::set_standing(Lane& lane, Standing standing) {
  if (lane.standing == standing) {
    return;
  }
  const Lane::Waits waits = lane.waits;
  if (waits == Lane::Waits::kNot || waits == Lane::Waits::kForToken) {
    lane.standing = standing;
    return;
  }
  leave_queue(lane);
  lane.standing = standing;
  if (waits == Lane::Waits::kForEngine) {
    queue_for_engine(lane, waits);
  } else {
    queue_for_destination(lane);
  }
}

void Scheduler::give_back_place(Destination& destination, Standing standing) {
  destination.places.give_back(standing);
  destination.bucket.give_back();
}

// Grants places to waiting lanes, one lane of each standing at a time. A place
// and a token are taken for the lane at once: it may have to wait for its share
// of the engine, and lanes that come later must not overtake it. Forgets a
// destination that nobody needs.
void Scheduler::serve(Destination& destination) {
  const auto may_go = [&](Standing standing) {
    return destination.granted[standing] == nullptr &&
           destination.places.room_for(standing);
  };
  while (Lane* const lane = destination.waiting.first(may_go)) {
    if (!destination.bucket.available(timers_.now_us())) {
      if (!destination.timer.armed()) {
        timers_.set(destination.timer, destination.bucket.next_us(),
                    &destination);
      }
      return;
    }
    destination.waiting.remove(*lane);
    destination.bucket.take();
    destination.places.take(lane->standing);
    destination.granted[lane->standing] = lane;
    queue_for_engine(*lane, Lane::Waits::kGranted);
  }
  if (destination.lanes == 0 && destination.places.taken() == 0) {
    timers_.cancel(destination.timer);
    destinations_.erase(destinations_.find(*destination.name));
  }
}

// Does not overtake lanes that wait.
bool Scheduler::take_place(Lane& lane) {
  Destination& destination = *lane.destination;
  if (!destination.waiting.empty() ||
      !destination.places.room_for(lane.standing) ||
      !destination.bucket.available(timers_.now_us())) {
    return false;
  }
  destination.bucket.take();
  destination.places.take(lane.standing);
  return true;
}

Item* Scheduler::start_next(Lane& lane) {
  Destination& destination = *lane.destination;
  const bool granted =
      std::exchange(lane.waits, Lane::Waits::kNot) == Lane::Waits::kGranted;
  Item* item = nullptr;
  if (!may_start(lane)) {
    // The lane's own next event brings it back.
  } else if (!lane.bucket.available(timers_.now_us())) {
    lane.waits = Lane::Waits::kForToken;
    timers_.set(lane.timer, lane.bucket.next_us(), &lane);
  } else if (granted || take_place(lane)) {
    item = &lane.ready.front();
    move(*item, Item::Stage::kStarted);
    item->destination = &destination;
    item->standing = lane.standing;
    item->url_changes = lane.url_changes;
    ++lane.started;
    lane.bucket.take();
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  } else {
    queue_for_destination(lane);
    return nullptr;
  }
  if (granted) {
    destination.granted[lane.standing] = nullptr;
    if (item == nullptr) {
      give_back_place(destination, lane.standing);
    }
    serve(destination);
  }
  if (item != nullptr) {
    enqueue(lane);
  }
  return item;
}

Item* Scheduler::next() {
  const auto has_place = [this](Standing standing) {
    return in_flight_.room_for(standing);
  };
  while (Lane* const lane = run_queue_.first(has_place)) {
    run_queue_.remove(*lane);
    if (Item* const item = start_next(*lane)) {
      return item;
    }
  }
  return nullptr;
}

void Scheduler::finish(Item& item, ErrorClass error) {
  Lane& lane = *item.lane;
  if (item.url_changes == lane.url_changes) {
    set_standing(lane, standing_after(error, lane.standing));
  }
  --lane.started;
  lane.failures_in_a_row =
      error == ErrorClass::kNone ? 0 : lane.failures_in_a_row + 1;
  item.destination->places.give_back(item.standing);
  serve(*std::exchange(item.destination, nullptr));
}

void Scheduler::retry(Item& item, std::int64_t wait_ms) {
  waiting_.fetch_add(1, std::memory_order_relaxed);
  delay(item, wait_ms);
  enqueue(*item.lane);
}

void Scheduler::drop(Item& item) {
  Lane& lane = *item.lane;
  erase(item);
  if (!lane.deleted()) {
    enqueue(lane);
  } else if (lane.started == 0) {
    lanes_.erase(lane.self);
  }
}

}  // namespace webhooks
