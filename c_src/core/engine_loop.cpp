#include "core/engine_loop.hpp"

#include <openssl/ssl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

namespace webhooks {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
// A host's connections stay in few multis so that they are shared between
// lanes, but not so many in one that curl's scan over them shows.
constexpr std::size_t kHostConnectionsPerMulti = 64;

}  // namespace

// The descriptors belong to the whole VM, whose own tables were sized by the
// same limit at its start: raising it here could break the VM's sockets, so we
// live with half of them, unless told otherwise.
std::size_t EngineLoop::descriptors_max(std::size_t asked) {
  constexpr std::size_t kUnlimited = 1U << 20;
  rlimit limit{};
  const bool limited =
      getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  const std::size_t all =
      limited ? static_cast<std::size_t>(limit.rlim_cur) : kUnlimited;
  return asked == 0 ? all / 2 : std::min(asked, all);
}

EngineLoop::EngineLoop(EngineOptions options, EngineCounters& counters,
                       TrustStore trust)
    : options_(std::move(options)),
      counters_(counters),
      trust_(std::move(trust)),
      random_(std::random_device{}()) {
  schedule_.delays_ms = options_.retry_delays_ms;
  schedule_.jitter_percent = options_.jitter_percent;
  schedule_.retry_after_max_ms = options_.retry_after_max_ms;
  transfer_settings_.body_bytes_max = options_.response_body_bytes_max;
  transfer_settings_.header_bytes_max = options_.response_header_bytes_max;
  transfer_settings_.https_only = options_.policy.https_only;
  transfer_settings_.user_agent = options_.user_agent.empty()
                                      ? "Plausible-Webhooks/" WEBHOOKS_VERSION
                                      : options_.user_agent;
}

Result<std::unique_ptr<EngineLoop>> EngineLoop::create(
    const EngineOptions& options, EngineCounters& counters) {
  auto trust = TrustStore::load(options.ca_file);
  if (!trust) {
    return trust.error();
  }
  std::unique_ptr<EngineLoop> loop(
      new EngineLoop(options, counters, std::move(trust).value()));
  const std::size_t descriptors = descriptors_max(options.descriptors_max);
  loop->in_flight_max_ = std::max<std::size_t>(
      1, std::min<std::size_t>(options.in_flight_max, descriptors / 2));
  const std::size_t multis =
      std::clamp<std::size_t>(descriptors / 128, 1, options.multi_handles);
  const auto idle = static_cast<long>(
      std::clamp<std::size_t>(descriptors / 2 / multis, 8, 128));
  loop->host_spread_ = std::clamp<std::size_t>(
      (options.host_in_flight_max + kHostConnectionsPerMulti - 1) /
          kHostConnectionsPerMulti,
      1, multis);
  auto events = EventLoop::create(multis, idle);
  if (!events) {
    return events.error();
  }
  loop->events_ = std::move(events).value();
  ResolverOptions resolver;
  resolver.resolve = options.resolve;
  resolver.threads_max = options.resolver_threads_max;
  resolver.deadline_ms = options.dns_timeout_ms;
  resolver.cache_ms = options.dns_cache_ms;
  resolver.wake = [raw = loop->events_.get()] { raw->wake(); };
  loop->resolver_ = std::make_unique<Resolver>(std::move(resolver));
  loop->now_us_ = EventLoop::now_us();
  return loop;
}

EngineLoop::~EngineLoop() {
  // The resolver first: after it nobody wakes the loop any more.
  resolver_.reset();
  for (const auto& busy : busy_transfers_) {
    events_->remove(busy.first->multi(), busy.first->easy());
  }
  busy_transfers_.clear();
  idle_transfers_.clear();
  events_->close_multis();
}

void EngineLoop::socket_opened(curl_socket_t descriptor) noexcept {
  events_->forget(descriptor);
  counters_.connections_opened.fetch_add(1, std::memory_order_relaxed);
}

int EngineLoop::on_close_socket(void* loop, curl_socket_t descriptor) noexcept {
  static_cast<EngineLoop*>(loop)->events_->forget(descriptor);
  return close(descriptor);
}

CURLcode EngineLoop::on_tls_context(CURL* easy, void* context,
                                    void* loop) noexcept {
  auto* tls = static_cast<SSL_CTX*>(context);
  SSL_CTX_set1_cert_store(tls, static_cast<EngineLoop*>(loop)->trust_.get());
  // SSLKEYLOGFILE in the host's environment must not write customers' session
  // keys to disk.
  SSL_CTX_set_keylog_callback(tls, nullptr);
  Transfer::of(easy)->note_tls_begun();
  return CURLE_OK;
}

TokenBucket EngineLoop::lane_bucket(const Endpoint& endpoint) const {
  const std::uint32_t rate = rate_of(endpoint);
  return {rate, rate, now_us_};
}

Host& EngineLoop::host_of(const std::string& name) {
  auto& host = hosts_[name];
  if (!host) {
    const std::uint32_t rate = options_.host_rate_per_s;
    host = std::make_unique<Host>(TokenBucket(rate, rate, now_us_));
    host->name = name;
  }
  return *host;
}

void EngineLoop::drop_host_if_idle(Host& host) {
  if (host.lanes != 0 || host.slots.total() != 0) {
    return;
  }
  if (host.timed) {
    timers_.erase(host.timer);
  }
  hosts_.erase(std::string(host.name));
}

void EngineLoop::attach(Lane& lane) {
  lane.parsed_url = parse_url(lane.endpoint.url.text);
  lane.host = &host_of(lane.endpoint.url.host);
  ++lane.host->lanes;
  const std::hash<std::string> hash;
  const std::size_t within = hash(lane.endpoint.webhook_id) % host_spread_;
  const std::size_t base =
      hash(lane.endpoint.url.host) + std::size_t{lane.endpoint.url.port};
  lane.multi = (base + within) % events_->multis();
}

// Takes the lane out of every queue; its own items stay.
void EngineLoop::detach(Lane& lane) {
  Host& host = *lane.host;
  dequeue(lane);
  if (lane.timed) {
    timers_.erase(lane.timer);
    lane.timed = false;
  }
  --host.lanes;
  lane.host = nullptr;
  release_host(host);
  drop_host_if_idle(host);
}

void EngineLoop::put(Endpoint endpoint) {
  const auto found = lanes_.find(endpoint.webhook_id);
  if (found == lanes_.end()) {
    std::string id = endpoint.webhook_id;
    TokenBucket bucket = lane_bucket(endpoint);
    auto lane = std::make_unique<Lane>(std::move(endpoint), bucket);
    attach(*lane);
    lanes_.emplace(std::move(id), std::move(lane));
    counters_.lanes.store(lanes_.size(), std::memory_order_relaxed);
    return;
  }
  Lane& lane = *found->second;
  detach(lane);
  if (lane.endpoint.rate_per_s != endpoint.rate_per_s) {
    lane.bucket = lane_bucket(endpoint);
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

void EngineLoop::remove(const std::string& webhook_id) {
  const auto found = lanes_.find(webhook_id);
  if (found == lanes_.end()) {
    return;
  }
  std::unique_ptr<Lane> lane = std::move(found->second);
  lanes_.erase(found);
  counters_.lanes.store(lanes_.size(), std::memory_order_relaxed);
  lane->deleted = true;
  cancel_waiting(*lane);
  detach(*lane);
  if (lane->busy > 0) {
    Lane* key = lane.get();
    dying_.emplace(key, std::move(lane));
  }
}

void EngineLoop::cancel_waiting(Lane& lane) {
  std::vector<Item*> waiting;
  for (Item& item : lane.ready) {
    waiting.push_back(&item);
  }
  for (Item& item : lane.away) {
    if (item.place == Place::kDelayed) {
      waiting.push_back(&item);
    }
  }
  for (Item* item : waiting) {
    report_without_attempt(item->delivery, ErrorClass::kCancelled);
    counters_.waiting.fetch_sub(1, std::memory_order_relaxed);
    erase(*item);
  }
}

void EngineLoop::bury(Lane& lane) {
  if (lane.deleted && lane.busy == 0) {
    dying_.erase(&lane);
  }
}

void EngineLoop::take(Delivery delivery) {
  const auto known = items_.find(delivery.id);
  if (known != items_.end()) {
    // Already here: at least once does not ask for twice.
    counters_.waiting.fetch_sub(1, std::memory_order_relaxed);
    if (delivery.manual) {
      replace_waiting(*known->second, delivery);
    }
    return;
  }
  const auto found = lanes_.find(delivery.webhook_id);
  if (found == lanes_.end()) {
    counters_.waiting.fetch_sub(1, std::memory_order_relaxed);
    report_without_attempt(delivery, ErrorClass::kUnknownWebhook);
    return;
  }
  if (!delivery.body || delivery.body->size() > options_.body_bytes_max) {
    counters_.waiting.fetch_sub(1, std::memory_order_relaxed);
    refuse_body(delivery);
    return;
  }
  Lane& lane = *found->second;
  if (!delivery.manual && !has_room(lane)) {
    counters_.waiting.fetch_sub(1, std::memory_order_relaxed);
    put_off(lane, delivery);
    return;
  }
  const std::int64_t now = now_ms();
  const bool later = delivery.due_at_ms > now;
  const bool first = delivery.manual;
  std::list<Item>& list = later ? lane.away : lane.ready;
  const auto self = list.emplace(first ? list.begin() : list.end());
  Item& item = *self;
  const std::int64_t wait_ms = delivery.due_at_ms - now;
  item.delivery = std::move(delivery);
  item.lane = &lane;
  item.self = self;
  items_.emplace(item.delivery.id, &item);
  if (later) {
    item.place = Place::kDelayed;
    // Not from now_us_: that is as old as the wait before this.
    item.timer = timers_.emplace(EventLoop::now_us() + wait_ms * 1000, &item);
  } else {
    enqueue(lane);
  }
}

void EngineLoop::replace_waiting(Item& item, const Delivery& delivery) {
  item.delivery.schedule_from =
      std::max(item.delivery.schedule_from, delivery.schedule_from);
  item.delivery.manual = true;
  if (item.place == Place::kDelayed) {
    timers_.erase(item.timer);
    make_ready(item);
  }
  if (item.place == Place::kReady) {
    Lane& lane = *item.lane;
    lane.ready.splice(lane.ready.begin(), lane.ready, item.self);
  }
}

void EngineLoop::make_ready(Item& item) {
  Lane& lane = *item.lane;
  item.place = Place::kReady;
  lane.ready.splice(lane.ready.end(), lane.away, item.self);
  enqueue(lane);
}

void EngineLoop::set_lane_timer(Lane& lane, std::int64_t at_us) {
  lane.timed = true;
  lane.timer = timers_.emplace(at_us, &lane);
}

void EngineLoop::set_host_timer(Host& host, std::int64_t at_us) {
  if (host.timed) {
    return;
  }
  host.timed = true;
  host.timer = timers_.emplace(at_us, &host);
}

void EngineLoop::fire_timers() {
  while (!timers_.empty() && timers_.begin()->first <= now_us_) {
    const TimerTarget target = timers_.begin()->second;
    timers_.erase(timers_.begin());
    if (Item* const* item = std::get_if<Item*>(&target)) {
      if ((*item)->place == Place::kResolving) {
        give_up_name(**item);
      } else {
        make_ready(**item);
      }
    } else if (Lane* const* lane = std::get_if<Lane*>(&target)) {
      (*lane)->timed = false;
      enqueue(**lane);
    } else if (Host* const* host = std::get_if<Host*>(&target)) {
      (*host)->timed = false;
      release_host(**host);
    }
  }
}

std::int64_t EngineLoop::next_wait_us(std::int64_t wait_us) const {
  std::int64_t next = resolver_->next_deadline_us();
  if (open_ && !timers_.empty()) {
    next = std::min(next, timers_.begin()->first);
  }
  if (next == kNever) {
    return wait_us;
  }
  return std::clamp<std::int64_t>(next - now_us_, 0, wait_us);
}

std::size_t EngineLoop::turn(std::int64_t wait_us) {
  now_us_ = EventLoop::now_us();
  trust_.refresh(now_us_);
  settle_names();
  if (open_) {
    fire_timers();
  }
  pump();
  const bool said = !finished_.empty();
  const std::size_t events =
      events_->turn(said ? 0 : next_wait_us(wait_us),
                    [this](CURL* easy, CURLcode code) { done(easy, code); });
  rebuild_broken();
  counters_.in_flight.store(slots_.total(), std::memory_order_relaxed);
  counters_.loop_turns.fetch_add(1, std::memory_order_relaxed);
  counters_.finished_unread.store(finished_.size(), std::memory_order_relaxed);
  return events;
}

std::vector<std::string> EngineLoop::unfinished() const {
  std::vector<std::string> ids;
  ids.reserve(items_.size());
  for (const auto& item : items_) {
    ids.push_back(item.first);
  }
  return ids;
}

}  // namespace webhooks
