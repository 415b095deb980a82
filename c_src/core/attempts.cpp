#include "core/attempts.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "core/clock.hpp"

namespace webhooks {
namespace {

// A handle costs some 10 KiB: after a burst the surplus goes.
constexpr std::size_t kIdleFlightsMax = 512;

ResolverOptions resolver_options(const EngineOptions& options,
                                 EventLoop& events) {
  ResolverOptions resolver;
  resolver.resolve = options.resolve;
  resolver.threads_max = options.resolver_threads_max;
  resolver.deadline_ms = options.dns_timeout_ms;
  resolver.cache_ms = options.dns_cache_ms;
  resolver.wake = [&events] { events.wake(); };
  return resolver;
}

TransferSettings transfer_settings(const EngineOptions& options,
                                   const TrustStore& trust, EventLoop& events) {
  return {{options.policy.addresses, options.policy.https_only, trust, events},
          options.user_agent.empty() ? "Plausible-Webhooks/" WEBHOOKS_VERSION
                                     : options.user_agent,
          options.response_body_bytes_max,
          options.response_header_bytes_max};
}

// Every attempt is signed anew; keys past their overlap drop out. Empty: no key
// is left, or OpenSSL failed.
std::string sign(Endpoint& endpoint, const Delivery& delivery,
                 std::int64_t now_ms) {
  std::string header;
  for (EndpointKey& key : endpoint.keys) {
    if (key.expires_at_ms && *key.expires_at_ms <= now_ms) {
      continue;
    }
    if (!header.empty()) {
      header += ' ';
    }
    if (!key.key.append_signature(delivery.id, now_ms / 1000, *delivery.body,
                                  header)) {
      return {};
    }
  }
  return header;
}

}  // namespace

Attempts::Attempts(const EngineOptions& options,
                   std::unique_ptr<EventLoop> events, std::size_t spread,
                   TrustStore trust, Scheduler& scheduler, Places& in_flight,
                   Timers& timers, Report& report)
    : options_(options),
      spread_(spread),
      trust_(std::move(trust)),
      scheduler_(scheduler),
      in_flight_(in_flight),
      timers_(timers),
      report_(report),
      schedule_{options.retry_delays_ms, options.jitter_percent,
                options.retry_after_max_ms},
      random_(std::random_device{}()),
      events_(std::move(events)),
      resolver_(
          std::make_unique<Resolver>(resolver_options(options, *events_))),
      settings_(transfer_settings(options, trust_, *events_)) {}

Attempts::~Attempts() {
  // The resolver first: after it nobody wakes the loop any more.
  resolver_.reset();
  for (const Flight& flight : busy_) {
    events_->remove(flight.multi, flight.easy());
  }
  busy_.clear();
  idle_.clear();
  events_->close_multis();
}

void Attempts::start(Item& item) {
  item.started_us = steady_now_us();
  item.started_ms = options_.now_ms();
  item.resolved_us = 0;
  resolve(item);
}

void Attempts::resolve(Item& item) {
  const Lane& lane = *item.lane;
  if (lane.deleted()) {  // while its name was looked up
    scheduler_.finish(item, ErrorClass::kCancelled);
    report_.add_unattempted(item.delivery, DeliveryState::kCancelled,
                            ErrorClass::kCancelled, {}, options_.now_ms());
    scheduler_.drop(item);
    return;
  }
  if (lane.endpoint.url.literal) {
    launch(item, nullptr);
    return;
  }
  const Resolver::Lookup lookup =
      resolver_->lookup(lane.endpoint.url.host, timers_.now_us());
  switch (lookup.state) {
    case Resolver::State::kKnown:
      item.resolved_us = steady_now_us();
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

// The attempt's time may be over before the lookup's own deadline.
void Attempts::wait_for_name(Item& item) {
  const Endpoint& endpoint = item.lane->endpoint;
  const auto waiters = resolving_.try_emplace(endpoint.url.host).first;
  waiters->second.push_back(&item);
  item.awaited = &waiters->first;
  timers_.set(item.timer,
              item.started_us + std::int64_t{timeout_ms(endpoint)} * 1000,
              &item);
}

void Attempts::give_up_name(Item& item) {
  std::erase(resolving_.find(*item.awaited)->second, &item);
  fail_before_launch(item, ErrorClass::kDnsTimeout, "no DNS answer in time");
}

void Attempts::settle_names() {
  for (const std::string& name : resolver_->settle(timers_.now_us())) {
    const auto found = resolving_.find(name);
    if (found == resolving_.end()) {
      continue;
    }
    for (Item* item : found->second) {
      timers_.cancel(item->timer);
      item->resolved_us = timers_.now_us();
      resolved_[item->standing].push_back(item);
    }
    resolving_.erase(found);
  }
}

// Of those whose share of the engine has room, the one that waits longest.
Item* Attempts::next_resolved() {
  std::deque<Item*>* first = nullptr;
  for (const Standing standing : kStandings) {
    std::deque<Item*>& line = resolved_[standing];
    if (line.empty() || !in_flight_.room_for(standing)) {
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

void Attempts::start_resolved() {
  while (Item* const item = next_resolved()) {
    // The wait for a place is not the receiver's doing: the attempt's time
    // stood still.
    const std::int64_t waited_us = timers_.now_us() - item->resolved_us;
    item->started_us += waited_us;
    item->started_ms += waited_us / 1000;
    resolve(*item);
  }
}

void Attempts::launch(Item& item, const std::vector<IpAddress>* addresses) {
  const Url& url = item.lane->endpoint.url;
  // One refused address among the answers refuses the name: an attack looks
  // like this, and no honest set-up does.
  if (addresses != nullptr &&
      std::ranges::any_of(*addresses, [&](const IpAddress& address) {
        return options_.policy.addresses.judge(address, url.port, url.host)
            .has_value();
      })) {
    TransferFacts facts;
    facts.address_refused = true;
    fail_before_launch(item, ErrorClass::kBlockedAddress,
                       judge_transfer(facts).detail);
    return;
  }
  const std::int64_t signed_ms = wall_now_ms();
  const std::string signature =
      sign(item.lane->endpoint, item.delivery, signed_ms);
  if (signature.empty()) {
    fail_before_launch(item, ErrorClass::kInternal,
                       "the delivery cannot be signed");
  } else if (!send(item, addresses, signature, signed_ms)) {
    fail_before_launch(item, ErrorClass::kInternal,
                       "the request cannot be set up");
  }
}

std::uint32_t Attempts::timeout_ms(const Endpoint& endpoint) const {
  return endpoint.timeout_ms != 0 ? endpoint.timeout_ms : options_.timeout_ms;
}

// The connections to one destination stay in few multis, so that its lanes
// share them.
void Attempts::route(Lane& lane) const {
  const Endpoint& endpoint = lane.endpoint;
  const std::hash<std::string> hash;
  lane.parsed_url = parse_url(endpoint.url.text);
  lane.multi = (hash(endpoint.url.host) + std::size_t{endpoint.url.port} +
                hash(endpoint.webhook_id) % spread_) %
               events_->multis();
}

Attempts::Flight* Attempts::idle_flight() {
  if (idle_.empty()) {
    Flight& flight = idle_.emplace_back(settings_);
    if (!flight.open()) {
      idle_.pop_back();
      return nullptr;
    }
    flight.self = std::prev(idle_.end());
  }
  return &idle_.back();
}

bool Attempts::send(Item& item, const std::vector<IpAddress>* addresses,
                    const std::string& signature, std::int64_t signed_ms) {
  Flight* const flight = idle_flight();
  if (flight == nullptr) {
    return false;
  }
  Lane& lane = *item.lane;
  if (!lane.parsed_url) {
    route(lane);
  }
  const Endpoint& endpoint = lane.endpoint;
  const std::int64_t left_ms =
      timeout_ms(endpoint) - (steady_now_us() - item.started_us) / 1000;
  const TransferRequest request{
      endpoint,
      lane.parsed_url,
      item.delivery,
      addresses,
      signature,
      signed_ms / 1000,
      static_cast<std::uint32_t>(std::max<std::int64_t>(1, left_ms)),
      endpoint.connect_timeout_ms != 0 ? endpoint.connect_timeout_ms
                                       : options_.connect_timeout_ms,
      item.started_us,
      item.resolved_us};
  if (!flight->prepare(request) || !events_->add(lane.multi, flight->easy())) {
    idle_.erase(flight->self);
    return false;
  }
  flight->item = &item;
  flight->multi = lane.multi;
  busy_.splice(busy_.end(), idle_, flight->self);
  in_flight_.take(item.standing);
  return true;
}

std::size_t Attempts::poll(std::int64_t wait_us) {
  trust_.refresh(timers_.now_us());
  const std::size_t events = events_->poll(
      wait_us, [this](CURL* easy, CURLcode code) { done(easy, code); });
  rebuild_broken();
  report_.stats.connections_opened = events_->opened_count();
  report_.stats.resolver_threads = resolver_->threads();
  report_.stats.resolver_stuck = resolver_->stuck();
  return events;
}

void Attempts::done(CURL* easy, CURLcode code) {
  Flight& flight = static_cast<Flight&>(*Transfer::of(easy));
  Item& item = *flight.item;
  Attempt attempt;
  const auto retry_after_ms = flight.finish(code, attempt);
  if (flight.reusable() && idle_.size() < kIdleFlightsMax) {
    idle_.splice(idle_.end(), busy_, flight.self);
  } else {
    busy_.erase(flight.self);
  }
  in_flight_.give_back(item.standing);
  settle(item, std::move(attempt), retry_after_ms);
}

// A multi that curl gave up: its transfers fail (and are retried), the next
// ones get a new multi.
void Attempts::rebuild_broken() {
  for (const std::size_t multi : events_->broken()) {
    for (auto it = busy_.begin(); it != busy_.end();) {
      const Flight& flight = *it++;
      if (flight.multi == multi) {
        events_->remove(multi, flight.easy());
        done(flight.easy(), CURLE_FAILED_INIT);
      }
    }
    events_->rebuild(multi);
  }
}

void Attempts::fail_before_launch(Item& item, ErrorClass error,
                                  std::string detail) {
  Attempt attempt;
  attempt.error = error;
  attempt.detail = std::move(detail);
  attempt.total_us = static_cast<std::uint64_t>(
      std::max<std::int64_t>(steady_now_us() - item.started_us, 0));
  settle(item, std::move(attempt), std::nullopt);
}

// `delay_ms`: until the next attempt, when there is one.
DeliveryState Attempts::state_after(const Item& item, const Attempt& attempt,
                                    std::optional<std::int64_t> retry_after_ms,
                                    std::uint32_t& delay_ms) {
  if (attempt.error == ErrorClass::kNone) {
    return DeliveryState::kDelivered;
  }
  if (attempt.gone || !item.delivery.retry) {
    return DeliveryState::kFailed;
  }
  if (item.lane->deleted()) {
    return DeliveryState::kCancelled;
  }
  const std::uint32_t before = item.delivery.schedule_from;
  const std::uint32_t failures =
      attempt.number > before ? attempt.number - before : 1;
  const auto delay = schedule_.next_delay_ms(
      failures, retry_after_ms, static_cast<std::uint32_t>(random_()));
  if (!delay) {
    return DeliveryState::kFailed;
  }
  delay_ms = *delay;
  return delay_ms > options_.park_after_ms ? DeliveryState::kParked
                                           : DeliveryState::kPending;
}

void Attempts::settle(Item& item, Attempt attempt,
                      std::optional<std::int64_t> retry_after_ms) {
  attempt.number = ++item.delivery.attempts;
  attempt.delivery_id = item.delivery.id;
  attempt.webhook_id = item.delivery.webhook_id;
  attempt.started_at_ms = item.started_ms;
  attempt.gone = attempt.error == ErrorClass::kGone;
  std::uint32_t delay_ms = 0;
  attempt.state = state_after(item, attempt, retry_after_ms, delay_ms);
  if (attempt.state == DeliveryState::kParked ||
      attempt.state == DeliveryState::kPending) {
    attempt.next_at_ms = options_.now_ms() + delay_ms;
  }
  scheduler_.finish(item, attempt.error);
  if (attempt.state == DeliveryState::kPending) {
    scheduler_.retry(item, delay_ms);
  } else {
    scheduler_.drop(item);
  }
  report_.add(std::move(attempt));
}

}  // namespace webhooks
