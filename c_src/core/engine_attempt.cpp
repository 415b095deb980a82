// The part of EngineLoop that makes one attempt and draws the conclusion.
#include <algorithm>
#include <chrono>

#include "core/engine_loop.hpp"

namespace webhooks {
namespace {

// A handle costs some 10 KiB: after a burst the surplus goes.
constexpr std::size_t kIdleTransfersMax = 512;

// Any answer will do, for it frees the place; one that never ends does not.
// What we could not send says nothing of the receiver.
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

}  // namespace

std::int64_t wall_clock_ms() noexcept {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// The host's slot is taken already.
void EngineLoop::start(Item& item) {
  Lane& lane = *item.lane;
  item.host = lane.host;
  item.standing = lane.standing;
  item.url_changes = lane.url_changes;
  ++lane.busy;
  counters_.waiting.fetch_sub(1, std::memory_order_relaxed);
  item.started_us = EventLoop::now_us();
  item.started_ms = now_ms();
  item.resolved_us = 0;
  resolve(item);
}

// A name that hangs holds a place in its lane, not one of the engine's: those
// are for what has a connection.
void EngineLoop::resolve(Item& item) {
  Lane& lane = *item.lane;
  if (lane.deleted) {  // while its name was looked up
    free_slot(item);
    report_without_attempt(item.delivery, ErrorClass::kCancelled);
    erase(item);
    bury(lane);
    return;
  }
  if (lane.endpoint.url.literal) {
    launch(item, nullptr);
    return;
  }
  const Resolver::Lookup lookup =
      resolver_->lookup(lane.endpoint.url.host, now_us_);
  switch (lookup.state) {
    case Resolver::State::kKnown:
      item.resolved_us = EventLoop::now_us();
      launch(item, &lookup.resolution->addresses);
      break;
    case Resolver::State::kFailed:
      fail_before_launch(item, ErrorClass::kDnsError,
                         lookup.resolution->failure.empty()
                             ? "the name has no address"
                             : clean_detail(lookup.resolution->failure));
      break;
    case Resolver::State::kTimedOut:
      fail_before_launch(item, ErrorClass::kDnsTimeout,
                         "no DNS answer in time");
      break;
    case Resolver::State::kPending:
      wait_for_name(item);
      break;
  }
}

// The attempt's time runs while its name is looked up, whose own deadline may
// be later.
void EngineLoop::wait_for_name(Item& item) {
  const Endpoint& endpoint = item.lane->endpoint;
  const auto waiters = resolving_.try_emplace(endpoint.url.host).first;
  waiters->second.push_back(&item);
  item.place = Place::kResolving;
  item.asked = &waiters->first;
  item.timer = timers_.emplace(
      item.started_us + std::int64_t{timeout_of(endpoint)} * 1000, &item);
}

void EngineLoop::give_up_name(Item& item) {
  const auto waiters = resolving_.find(*item.asked);
  std::erase(waiters->second, &item);
  fail_before_launch(item, ErrorClass::kDnsTimeout, "no DNS answer in time");
}

std::uint32_t EngineLoop::timeout_of(const Endpoint& endpoint) const {
  return endpoint.timeout_ms != 0 ? endpoint.timeout_ms : options_.timeout_ms;
}

void EngineLoop::settle_names() {
  for (const std::string& host : resolver_->settle(now_us_)) {
    const auto found = resolving_.find(host);
    if (found == resolving_.end()) {
      continue;
    }
    for (Item* item : found->second) {
      timers_.erase(item->timer);
      item->resolved_us = now_us_;
      resolved_[item->standing].push_back(item);
    }
    resolving_.erase(found);
  }
  counters_.resolver_threads.store(resolver_->threads(),
                                   std::memory_order_relaxed);
  counters_.resolver_stuck.store(resolver_->stuck(), std::memory_order_relaxed);
}

// Every attempt is signed anew; keys past their overlap fall out by themselves.
std::optional<std::string> EngineLoop::sign(Lane& lane,
                                            const Delivery& delivery,
                                            std::int64_t now_ms) {
  std::string header;
  for (EndpointKey& key : lane.endpoint.keys) {
    if (key.expires_at_ms && *key.expires_at_ms <= now_ms) {
      continue;
    }
    if (!header.empty()) {
      header += ' ';
    }
    if (!key.key.append_signature(delivery.id, now_ms / 1000, *delivery.body,
                                  header)) {
      return std::nullopt;
    }
  }
  if (header.empty()) {
    return std::nullopt;
  }
  return header;
}

std::unique_ptr<Transfer> EngineLoop::new_transfer() {
  if (idle_transfers_.empty()) {
    return Transfer::create(*this, transfer_settings_);
  }
  std::unique_ptr<Transfer> transfer = std::move(idle_transfers_.back());
  idle_transfers_.pop_back();
  return transfer;
}

void EngineLoop::launch(Item& item, const std::vector<IpAddress>* addresses) {
  Lane& lane = *item.lane;
  if (addresses != nullptr) {
    // One refused address among the answers refuses the name: it is what an
    // attack looks like, and nobody's honest set-up.
    for (const IpAddress& address : *addresses) {
      if (!judge(address)) {
        continue;
      }
      TransferFacts facts;
      facts.address_refused = true;
      fail_before_launch(item, ErrorClass::kBlockedAddress,
                         judge_transfer(facts).detail);
      return;
    }
  }
  const std::int64_t signed_ms = wall_clock_ms();
  auto signature = sign(lane, item.delivery, signed_ms);
  if (!signature) {
    fail_before_launch(item, ErrorClass::kInternal,
                       "the delivery cannot be signed");
    return;
  }
  const Endpoint& endpoint = lane.endpoint;
  const std::uint32_t timeout = timeout_of(endpoint);
  const std::int64_t spent_ms = (EventLoop::now_us() - item.started_us) / 1000;
  Transfer::Plan plan;
  plan.item = &item;
  plan.signature = std::move(*signature);
  plan.unix_seconds = signed_ms / 1000;
  plan.addresses = addresses;
  plan.timeout_ms =
      static_cast<std::uint32_t>(std::max<std::int64_t>(1, timeout - spent_ms));
  plan.connect_timeout_ms = endpoint.connect_timeout_ms != 0
                                ? endpoint.connect_timeout_ms
                                : options_.connect_timeout_ms;
  auto transfer = new_transfer();
  if (!transfer || !transfer->prepare(plan) ||
      !events_->add(transfer->multi(), transfer->easy())) {
    fail_before_launch(item, ErrorClass::kInternal,
                       "the request cannot be set up");
    return;
  }
  item.place = Place::kInFlight;
  item.transfer = transfer.get();
  Transfer* key = transfer.get();
  busy_transfers_.emplace(key, std::move(transfer));
  slots_.take(item.standing);
}

void EngineLoop::done(CURL* easy, CURLcode code) {
  Transfer* transfer = Transfer::of(easy);
  Item& item = *transfer->item();
  const Verdict verdict = judge_transfer(transfer->facts(code));
  Attempt attempt;
  transfer->report(attempt);
  attempt.error = verdict.error;
  attempt.detail = verdict.detail;
  attempt.response_truncated = verdict.truncated;
  const auto retry_after_ms = transfer->retry_after_ms(wall_clock_ms());
  transfer->release();
  item.transfer = nullptr;
  const auto busy = busy_transfers_.find(transfer);
  if (transfer->reusable() && idle_transfers_.size() < kIdleTransfersMax) {
    idle_transfers_.push_back(std::move(busy->second));
  }
  busy_transfers_.erase(busy);
  slots_.give_back(item.standing);
  settle(item, std::move(attempt), retry_after_ms);
}

void EngineLoop::fail_before_launch(Item& item, ErrorClass error,
                                    std::string detail) {
  Attempt attempt;
  attempt.error = error;
  attempt.detail = std::move(detail);
  const std::int64_t spent = EventLoop::now_us() - item.started_us;
  attempt.total_us =
      static_cast<std::uint64_t>(std::max<std::int64_t>(spent, 0));
  settle(item, std::move(attempt), std::nullopt);
}

void EngineLoop::free_slot(Item& item) {
  Lane& lane = *item.lane;
  Host& host = *item.host;
  item.host = nullptr;
  --lane.busy;
  host.slots.give_back(item.standing);
  release_host(host);
  drop_host_if_idle(host);
}

void EngineLoop::erase(Item& item) {
  Lane& lane = *item.lane;
  if (item.place == Place::kDelayed) {
    timers_.erase(item.timer);
  }
  items_.erase(item.delivery.id);
  std::list<Item>& list = item.place == Place::kReady ? lane.ready : lane.away;
  list.erase(item.self);
}

// What the delivery is from now on.
void EngineLoop::decide(Item& item, Attempt& attempt,
                        std::optional<std::int64_t> retry_after_ms) {
  Lane& lane = *item.lane;
  const Delivery& delivery = item.delivery;
  if (attempt.error == ErrorClass::kNone) {
    lane.failures_in_a_row = 0;
    attempt.state = DeliveryState::kDelivered;
    return;
  }
  ++lane.failures_in_a_row;
  attempt.gone = attempt.error == ErrorClass::kGone;
  attempt.state = DeliveryState::kFailed;
  if (attempt.gone || !delivery.retry) {
    return;
  }
  if (lane.deleted) {
    attempt.state = DeliveryState::kCancelled;
    return;
  }
  const std::uint32_t failures = attempt.number > delivery.schedule_from
                                     ? attempt.number - delivery.schedule_from
                                     : 1;
  const auto delay_ms = schedule_.next_delay_ms(
      failures, retry_after_ms, static_cast<std::uint32_t>(random_()));
  if (!delay_ms) {
    return;
  }
  attempt.state = *delay_ms > options_.park_after_ms ? DeliveryState::kParked
                                                     : DeliveryState::kPending;
  attempt.next_at_ms = now_ms() + *delay_ms;
  if (attempt.state == DeliveryState::kPending) {
    item.place = Place::kDelayed;
    item.timer = timers_.emplace(
        EventLoop::now_us() + std::int64_t{*delay_ms} * 1000, &item);
  }
}

void EngineLoop::settle(Item& item, Attempt attempt,
                        std::optional<std::int64_t> retry_after_ms) {
  Lane& lane = *item.lane;
  attempt.number = ++item.delivery.attempts;
  attempt.delivery_id = item.delivery.id;
  attempt.webhook_id = item.delivery.webhook_id;
  attempt.started_at_ms = item.started_ms;
  if (item.url_changes == lane.url_changes) {
    set_standing(lane, standing_after(attempt.error, lane.standing));
  }
  free_slot(item);
  decide(item, attempt, retry_after_ms);
  const auto relaxed = std::memory_order_relaxed;
  counters_.attempts.fetch_add(1, relaxed);
  switch (attempt.state) {
    case DeliveryState::kPending:
      counters_.retried.fetch_add(1, relaxed);
      counters_.waiting.fetch_add(1, relaxed);
      break;
    case DeliveryState::kDelivered:
      counters_.delivered.fetch_add(1, relaxed);
      break;
    case DeliveryState::kParked:
      counters_.parked.fetch_add(1, relaxed);
      break;
    case DeliveryState::kFailed:
      counters_.failed.fetch_add(1, relaxed);
      break;
    case DeliveryState::kCancelled:
      counters_.cancelled.fetch_add(1, relaxed);
      break;
  }
  if (attempt.state != DeliveryState::kPending) {
    erase(item);
  }
  finished_.push_back(std::move(attempt));
  enqueue(lane);
  bury(lane);
}

Attempt EngineLoop::without_attempt(const Delivery& delivery,
                                    DeliveryState state) const {
  Attempt attempt;
  attempt.delivery_id = delivery.id;
  attempt.webhook_id = delivery.webhook_id;
  attempt.state = state;
  attempt.started_at_ms = now_ms();
  return attempt;
}

void EngineLoop::report_without_attempt(const Delivery& delivery,
                                        ErrorClass error) {
  Attempt attempt = without_attempt(delivery, DeliveryState::kCancelled);
  attempt.error = error;
  counters_.cancelled.fetch_add(1, std::memory_order_relaxed);
  finished_.push_back(std::move(attempt));
}

// Not turned away by submit, which could only say so of all that follow it:
// this one fails on record, and no attempt at it would end otherwise.
void EngineLoop::refuse_body(const Delivery& delivery) {
  Attempt attempt = without_attempt(delivery, DeliveryState::kFailed);
  attempt.error = ErrorClass::kInternal;
  attempt.detail = delivery.body ? "the payload is larger than body_bytes_max"
                                 : "the delivery has no payload";
  counters_.failed.fetch_add(1, std::memory_order_relaxed);
  finished_.push_back(std::move(attempt));
}

// A multi that curl gave up: its transfers fail (and are retried), the next
// ones get a new multi.
void EngineLoop::rebuild_broken() {
  for (const std::size_t multi : events_->take_broken()) {
    std::vector<Transfer*> lost;
    for (const auto& busy : busy_transfers_) {
      if (busy.first->multi() == multi) {
        lost.push_back(busy.first);
      }
    }
    for (Transfer* transfer : lost) {
      events_->remove(multi, transfer->easy());
      done(transfer->easy(), CURLE_FAILED_INIT);
    }
    events_->rebuild(multi);
  }
}

}  // namespace webhooks
