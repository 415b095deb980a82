#include "core/scheduler.hpp"

#include <algorithm>
#include <utility>

namespace webhooks {
namespace {

constexpr std::size_t kLaneWaitingMin = 256;  // every lane has room for these
constexpr std::uint64_t kLaneBytesMin = std::uint64_t{1} << 20;
// With a shorter wait the store would bring back at once what has just left.
constexpr std::int64_t kPutOffMsMin = 1'000;

// Says nothing of the receiver.
bool is_ours(ErrorClass error) {
  return error == ErrorClass::kInternal || error == ErrorClass::kCancelled ||
         error == ErrorClass::kUnknownWebhook ||
         error == ErrorClass::kConnectionClosed;
}

// Any complete answer proves a receiver, because it frees the place. An
// internal error says nothing about the receiver.
Standing standing_after(const Scheduler::Result& result, Standing before) {
  if (result.cut) {
    return Standing::kFailing;
  }
  switch (result.error) {
    case ErrorClass::kNone:
    case ErrorClass::kHttpStatus:
    case ErrorClass::kRedirect:
    case ErrorClass::kGone:
    case ErrorClass::kResponseTooLarge:
      return Standing::kProven;
    default:
      return is_ours(result.error) ? before : Standing::kFailing;
  }
}

std::list<Item>& list_of(Item& item) {
  return item.stage == Item::Stage::kReady ? item.lane->ready : item.lane->away;
}

}  // namespace

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

double Scheduler::rate_of(const Endpoint& endpoint) const {
  return endpoint.rate_per_s != 0 ? endpoint.rate_per_s
                                  : options_.lane_rate_per_s;
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

// Removes the lane from every queue; its items stay.
void Scheduler::detach(Lane& lane) {
  Destination& destination = *lane.destination;
  leave_queue(lane);
  --destination.lanes;
  if (std::exchange(lane.active, false)) {
    --active_;
    --destination.active;
  }
  lane.destination = nullptr;
  serve(destination);
}

void Scheduler::put(Endpoint endpoint) {
  Lane* const known = lane(endpoint.webhook_id);
  if (known == nullptr) {
    const double rate = rate_of(endpoint);
    Lane& lane =
        lanes_.emplace_front(std::move(endpoint), rate, timers_.now_us());
    lane.self = lanes_.begin();
    by_webhook_.emplace(lane.endpoint.webhook_id, &lane);
    attach(lane);
    return;
  }
  Lane& lane = *known;
  detach(lane);
  const bool moves = lane.endpoint.url.text != endpoint.url.text;
  if (moves || lane.endpoint.rate_per_s != endpoint.rate_per_s) {
    lane.rate.reset(rate_of(endpoint), timers_.now_us());
  }
  if (moves) {
    lane.failures_in_a_row = 0;
    lane.standing = Standing::kUnproven;
    ++lane.url_changes;
  }
  lane.endpoint = std::move(endpoint);
  attach(lane);
  count_active(lane);
  enqueue(lane);
}

void Scheduler::remove(const std::string& webhook_id) {
  Lane* const found = lane(webhook_id);
  if (found == nullptr) {
    return;
  }
  by_webhook_.erase(webhook_id);
  detach(*found);
  removed_.push_back(found);
}

std::vector<Delivery> Scheduler::take_removed(std::size_t max) {
  std::vector<Delivery> waited;
  while (!removed_.empty()) {
    Lane& lane = *removed_.front();
    for (std::list<Item>* items : {&lane.ready, &lane.away}) {
      for (auto it = items->begin(); it != items->end();) {
        Item& item = *it++;
        if (item.stage == Item::Stage::kStarted) {
          continue;
        }
        if (waited.size() == max) {
          return waited;
        }
        waited.push_back(take_removed(item));
      }
    }
    removed_.pop_front();
    lane.removed = true;
    if (lane.started == 0) {
      lanes_.erase(lane.self);
    }
  }
  return waited;
}

Delivery Scheduler::take_removed(Item& item) {
  items_.erase(item.delivery.id);  // the key refers to it
  timers_.cancel(item.timer);
  Delivery delivery = std::move(item.delivery);
  list_of(item).erase(item.self);
  return delivery;
}

bool Scheduler::has_room(const Lane& lane) const {
  const std::size_t held = lane.ready.size() + lane.away.size() - lane.started;
  if (held < kLaneWaitingMin && lane.waiting_bytes < kLaneBytesMin) {
    return true;
  }
  const std::int64_t soon_ms = options_.park_after_ms;
  return static_cast<double>(held) <
             lane.rate.per_s() * static_cast<double>(soon_ms) / 1000 &&
         lane.rate.held_until_us() <= timers_.now_us() + soon_ms * 1000 &&
         held + waiting_.count() <= options_.waiting_max &&
         lane.waiting_bytes < options_.lane_waiting_bytes_max &&
         lane.waiting_bytes + waiting_.bytes() <= options_.waiting_bytes_max;
}

std::int64_t Scheduler::book_ms(Lane& lane) const {
  const std::int64_t now = steady_now_us();
  const std::int64_t soonest_ms =
      std::max<std::int64_t>(options_.park_after_ms, kPutOffMsMin);
  lane.booked_until_us =
      std::max({lane.booked_until_us, now + soonest_ms * 1000,
                lane.rate.held_until_us()}) +
      static_cast<std::int64_t>(1'000'000 / lane.rate.per_s());
  return (lane.booked_until_us - now) / 1000;
}

void Scheduler::add(Lane& lane, Delivery delivery, std::int64_t wait_ms) {
  const auto at = delivery.manual ? lane.ready.begin() : lane.ready.end();
  const auto self = lane.ready.emplace(at);
  Item& item = *self;
  item.delivery = std::move(delivery);
  item.lane = &lane;
  item.self = self;
  lane.waiting_bytes += Waiting::bytes_of(item.delivery);
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

// One place for a lane that only fails, or whose receiver wants fewer requests:
// it probes.
std::uint32_t Scheduler::limit_of(const Lane& lane) const {
  if (lane.rate.probing() ||
      (options_.circuit_failures != 0 &&
       lane.failures_in_a_row >= options_.circuit_failures)) {
    return 1;
  }
  return lane.endpoint.in_flight_max != 0 ? lane.endpoint.in_flight_max
                                          : options_.lane_in_flight_max;
}

void Scheduler::count_active(Lane& lane) {
  const bool active =
      !lane.deleted() &&
      (lane.started > 0 || lane.waits == Lane::Waits::kForEngine ||
       lane.waits == Lane::Waits::kGranted ||
       lane.waits == Lane::Waits::kForDestination);
  if (active == lane.active) {
    return;
  }
  lane.active = active;
  if (active) {
    ++active_;
    ++lane.destination->active;
  } else {
    --active_;
    --lane.destination->active;
  }
}

bool Scheduler::may_start(const Lane& lane) const {
  const Destination& destination = *lane.destination;
  return !lane.ready.empty() && lane.started < limit_of(lane) &&
         destination.places.fair_for(lane.started, destination.active) &&
         in_flight_.fair_for(lane.started, active_);
}

void Scheduler::enqueue(Lane& lane) {
  if (lane.waits != Lane::Waits::kNot || lane.deleted() || !may_start(lane)) {
    return;
  }
  lane.ticket = ++tickets_;
  queue_for_engine(lane, Lane::Waits::kForEngine);
  count_active(lane);
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
  } else if (!lane.rate.bucket().available(timers_.now_us())) {
    lane.waits = Lane::Waits::kForToken;
    timers_.set(lane.timer, lane.rate.bucket().next_us(), &lane);
  } else if (granted || take_place(lane)) {
    item = &lane.ready.front();
    move(*item, Item::Stage::kStarted);
    item->destination = &destination;
    item->standing = lane.standing;
    item->url_changes = lane.url_changes;
    ++lane.started;
    lane.rate.bucket().take();
    lane.waiting_bytes -= Waiting::bytes_of(item->delivery);
    waiting_.remove(item->delivery);
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
  count_active(lane);
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

void Scheduler::finish(Item& item, const Result& result) {
  Lane& lane = *item.lane;
  if (item.url_changes == lane.url_changes) {
    set_standing(lane, standing_after(result, lane.standing));
  }
  --lane.started;
  if (result.error == ErrorClass::kNone) {
    lane.failures_in_a_row = 0;
    lane.rate.succeed();
  } else if (!result.limited && !is_ours(result.error)) {
    ++lane.failures_in_a_row;
  }
  count_active(lane);
  item.destination->places.give_back(item.standing);
  serve(*std::exchange(item.destination, nullptr));
}

void Scheduler::retry(Item& item, std::int64_t wait_ms) {
  wait_again(item);
  delay(item, wait_ms);
  enqueue(*item.lane);
}

void Scheduler::requeue(Item& item) {
  wait_again(item);
  move(item, Item::Stage::kReady);
  std::list<Item>& ready = item.lane->ready;
  ready.splice(ready.begin(), ready, item.self);
  enqueue(*item.lane);
}

void Scheduler::wait_again(Item& item) {
  const std::uint64_t bytes = Waiting::bytes_of(item.delivery);
  item.lane->waiting_bytes += bytes;
  waiting_.add(1, bytes);
}

void Scheduler::drop(Item& item) {
  Lane& lane = *item.lane;
  erase(item);
  if (!lane.deleted()) {
    enqueue(lane);
  } else if (lane.removed && lane.started == 0) {
    lanes_.erase(lane.self);
  }
}

}  // namespace webhooks
