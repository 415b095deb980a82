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
// Beyond headers and body: TLS, and chunks of a byte each.
constexpr std::uint64_t kFramingBytes = std::uint64_t{256} * 1024;
constexpr std::int64_t kBodyUs = 1'000'000;  // from the end of the headers
constexpr std::int64_t kLookAtBodiesUs = 100'000;
// At this age of a delivery, a receiver that wants fewer requests starts to
// cost it retries.
constexpr std::int64_t kYoungMs = std::int64_t{24} * 3'600'000;
constexpr const char* kNoDnsAnswer = "no DNS answer in time";

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

// The name may have moved to another machine.
bool is_failed_connection(ErrorClass error) {
  switch (error) {
    case ErrorClass::kConnectionRefused:
    case ErrorClass::kConnectionReset:
    case ErrorClass::kNetworkUnreachable:
    case ErrorClass::kConnectTimeout:
    case ErrorClass::kTlsError:
    case ErrorClass::kTlsTimeout:
      return true;
    default:
      return false;
  }
}

}  // namespace

Result<Attempts::Parts> Attempts::Parts::create(const EngineOptions& options,
                                                std::size_t multis,
                                                long idle_connections) {
  auto trust = TrustStore::load(options.ca_file);
  if (!trust) {
    return trust.error();
  }
  EventLoop::Limits limits;
  limits.multis = multis;
  limits.idle_connections_max = idle_connections;
  limits.received_bytes_max = std::uint64_t{options.response_header_bytes_max} +
                              options.response_body_bytes_max + kFramingBytes;
  auto events = EventLoop::create(limits);
  if (!events) {
    return events.error();
  }
  EventLoop& loop = *events.value();
  ResolverOptions names;
  names.channel.servers = options.dns_servers;
  names.channel.watch = [&loop](int descriptor, bool in, bool out) {
    loop.watch_other(descriptor, in, out);
  };
  names.moved = [&loop](const std::string& host, const auto& addresses) {
    loop.retire(std::hash<std::string>()(host), addresses);
  };
  auto resolver = Resolver::create(std::move(names));
  if (!resolver) {
    return resolver.error();
  }
  loop.set_on_other(
      [names = resolver.value().get()](int descriptor, bool in, bool out) {
        names->on_socket(descriptor, in, out);
      });
  return Parts{std::move(trust).value(), std::move(events).value(),
               std::move(resolver).value()};
}

Attempts::Attempts(const EngineOptions& options, Parts parts,
                   std::size_t spread, Scheduler& scheduler, Places& in_flight,
                   Timers& timers, Report& report)
    : options_(options),
      spread_(spread),
      trust_(std::move(parts.trust)),
      scheduler_(scheduler),
      in_flight_(in_flight),
      timers_(timers),
      report_(report),
      schedule_{options.retry_delays_ms, options.jitter_percent,
                options.retry_after_max_ms},
      random_(std::random_device{}()),
      events_(std::move(parts.events)),
      resolver_(std::move(parts.resolver)),
      settings_(transfer_settings(options, trust_, *events_)) {
  events_->set_on_slow([this](CURL* easy, std::int64_t took_us) {
    report_.note_slice(took_us,
                       easy == nullptr ? std::string() : webhook_of(easy));
  });
}

Attempts::~Attempts() {
  for (const Flight& flight : busy_) {
    events_->remove(flight.multi, flight.easy());
  }
  busy_.clear();
  idle_.clear();
  events_->close_multis();
}

const std::string& Attempts::webhook_of(CURL* easy) {
  return static_cast<Flight&>(*Transfer::of(easy)).item->delivery.webhook_id;
}

// Does the work for the item, which may be gone afterwards.
template <class Work>
void Attempts::measure(Item& item, Work work) {
  const std::int64_t began_us = steady_now_us();
  const std::size_t reported = report_.finished.size();
  work();
  if (const auto took_us = events_->slices().slow_since(began_us)) {
    report_.note_slice(took_us, report_.finished.size() > reported
                                    ? report_.finished.back().webhook_id
                                    : item.delivery.webhook_id);
  }
}

void Attempts::start(Item& item) {
  measure(item, [&] {
    item.started_us = steady_now_us();
    item.started_ms = options_.now_ms();
    item.resolved_us = 0;
    resolve(item);
  });
}

void Attempts::resolve(Item& item) {
  const Lane& lane = *item.lane;
  if (lane.deleted()) {  // while its name was looked up
    scheduler_.finish(item, {ErrorClass::kCancelled});
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
      if (lookup.resolution->timed_out) {
        fail_before_launch(item, ErrorClass::kDnsTimeout, kNoDnsAnswer);
      } else {
        fail_before_launch(item, ErrorClass::kDnsError,
                           clean_detail(lookup.resolution->failure));
      }
      break;
    case Resolver::State::kPending:
      wait_for_name(item);
      break;
  }
}

void Attempts::wait_for_name(Item& item) {
  const Endpoint& endpoint = item.lane->endpoint;
  const auto waiters = resolving_.try_emplace(endpoint.url.host).first;
  waiters->second.push_back(&item);
  item.awaited = &waiters->first;
  const std::uint32_t patience_ms =
      std::min(timeout_ms(endpoint), connect_timeout_ms(endpoint));
  timers_.set(item.timer, item.started_us + std::int64_t{patience_ms} * 1000,
              &item);
}

void Attempts::give_up_name(Item& item) {
  std::erase(resolving_.find(*item.awaited)->second, &item);
  fail_before_launch(item, ErrorClass::kDnsTimeout, kNoDnsAnswer);
}

void Attempts::begin_turn() {
  events_->slices().begin();
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
    // The receiver is not responsible for the wait for a place, so the
    // attempt's time stands still meanwhile.
    const std::int64_t waited_us = timers_.now_us() - item->resolved_us;
    item->started_us += waited_us;
    item->started_ms += waited_us / 1000;
    measure(*item, [&] { resolve(*item); });
  }
}

void Attempts::launch(Item& item, const std::vector<IpAddress>* addresses) {
  const Url& url = item.lane->endpoint.url;
  // One refused address among the answers refuses the name: only an attack has
  // such answers.
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

std::uint32_t Attempts::connect_timeout_ms(const Endpoint& endpoint) const {
  return endpoint.connect_timeout_ms != 0 ? endpoint.connect_timeout_ms
                                          : options_.connect_timeout_ms;
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
  const std::int64_t spent_ms = (steady_now_us() - item.started_us) / 1000;
  const auto left_of = [spent_ms](std::uint32_t patience_ms) {
    return static_cast<std::uint32_t>(
        std::max<std::int64_t>(1, patience_ms - spent_ms));
  };
  const TransferRequest request{
      endpoint, lane.parsed_url, item.delivery, addresses, signature,
      signed_ms / 1000, left_of(timeout_ms(endpoint)),
      left_of(connect_timeout_ms(endpoint)),
      // A delivery without retries must not use a connection that may end.
      item.fresh_connection || !item.delivery.retry, item.started_us,
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
  cut_bodies();
  report_.stats.connections_opened = events_->opened_count();
  report_.stats.lookups = resolver_->running();
  return events;
}

void Attempts::done(CURL* easy, CURLcode code) {
  Flight& flight = static_cast<Flight&>(*Transfer::of(easy));
  Item& item = *flight.item;
  Attempt attempt;
  Ending ending;
  ending.retry_after_ms = flight.finish(code, attempt);
  ending.cut = code == CURLE_OPERATION_TIMEDOUT && flight.answered_us() != 0;
  if (flight.reusable() && idle_.size() < kIdleFlightsMax) {
    idle_.splice(idle_.end(), busy_, flight.self);
  } else {
    busy_.erase(flight.self);
  }
  in_flight_.give_back(item.standing);
  settle(item, std::move(attempt), ending);
}

// The result is known. A dripping body must not hold its place until the end of
// the attempt's time.
void Attempts::cut_bodies() {
  const std::int64_t now = steady_now_us();
  if (now - looked_at_bodies_us_ < kLookAtBodiesUs) {
    return;
  }
  looked_at_bodies_us_ = now;
  for (auto it = busy_.begin(); it != busy_.end();) {
    const Flight& flight = *it++;
    if (flight.answered_us() != 0 && now - flight.answered_us() >= kBodyUs) {
      events_->remove(flight.multi, flight.easy());
      done(flight.easy(), CURLE_OPERATION_TIMEDOUT);
    }
  }
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
  settle(item, std::move(attempt), {});
}

Attempts::Next Attempts::next_of(Item& item, const Attempt& attempt,
                                 std::int64_t hold_ms) {
  const Delivery& delivery = item.delivery;
  if (attempt.error == ErrorClass::kNone) {
    return {DeliveryState::kDelivered};
  }
  if (attempt.gone || !delivery.retry) {
    return {DeliveryState::kFailed};
  }
  if (item.lane->deleted()) {
    return {DeliveryState::kCancelled};
  }
  const bool young = options_.now_ms() - delivery.accepted_at_ms < kYoungMs;
  Next next{DeliveryState::kPending, hold_ms, false};
  item.fresh_connection = attempt.error == ErrorClass::kConnectionClosed;
  if (!item.fresh_connection && (hold_ms == 0 || !young)) {
    const std::uint32_t before = delivery.schedule_from;
    const std::uint32_t failures =
        attempt.number > before ? attempt.number - before : 1;
    const auto step_ms = schedule_.next_delay_ms(
        failures, static_cast<std::uint32_t>(random_()));
    if (!step_ms) {
      return {DeliveryState::kFailed};
    }
    next.wait_ms = std::max<std::int64_t>(*step_ms, hold_ms);
    next.counts = true;
  }
  if (next.wait_ms > options_.park_after_ms) {
    next.state = DeliveryState::kParked;
  }
  return next;
}

void Attempts::settle(Item& item, Attempt attempt, const Ending& ending) {
  attempt.number = ++item.delivery.attempts;
  attempt.delivery_id = item.delivery.id;
  attempt.webhook_id = item.delivery.webhook_id;
  attempt.started_at_ms = item.started_ms;
  attempt.gone = attempt.error == ErrorClass::kGone;
  attempt.retry = item.delivery.retry;
  const Url& url = item.lane->endpoint.url;
  if (!url.literal && is_failed_connection(attempt.error)) {
    resolver_->distrust(url.host, timers_.now_us());
  }
  const bool limited =
      attempt.status == 429 || (attempt.status == 503 && ending.retry_after_ms);
  std::int64_t hold_ms = 0;
  if (limited) {
    const std::uint32_t told_ms =
        schedule_.asked_delay_ms(ending.retry_after_ms.value_or(0),
                                 static_cast<std::uint32_t>(random_()));
    hold_ms = item.lane->rate.limit(told_ms, steady_now_us());
  }
  const Next next = next_of(item, attempt, hold_ms);
  attempt.state = next.state;
  item.delivery.schedule_from += next.counts ? 0 : 1;
  attempt.schedule_from = item.delivery.schedule_from;
  if (next.state == DeliveryState::kParked ||
      next.state == DeliveryState::kPending) {
    attempt.next_at_ms = options_.now_ms() + next.wait_ms;
  }
  scheduler_.finish(item, {attempt.error, limited, ending.cut});
  if (next.state != DeliveryState::kPending) {
    scheduler_.drop(item);
  } else if (next.counts) {
    scheduler_.retry(item, next.wait_ms);
  } else {
    scheduler_.requeue(item);  // the lane itself waits, if need be
  }
  report_.add(std::move(attempt));
}

}  // namespace webhooks
