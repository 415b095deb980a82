// Purpose: the engine's outer side: the admission queue, who may drive, stop.
#include "webhooks/engine.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>
#include <variant>

#include "core/engine_loop.hpp"

namespace webhooks {
namespace {

// Once something is there to report, the loop still takes in what is ready:
// a list of results costs the caller a third of what one by one does. Not for
// longer than this, which nobody notices.
constexpr std::int64_t kGatherUs = 2'000;
constexpr std::size_t kGatherMax = 512;
constexpr std::uint32_t kWaitMsMax = 1'000;

struct RemoveEndpoint {
  std::string webhook_id;
};
using Command = std::variant<Delivery, Endpoint, RemoveEndpoint>;

Error invalid(const char* name) { return {"invalid_option", name}; }

Status check_options(const EngineOptions& options) {
  if (options.retry_delays_ms.size() > kRetryStepsMax) {
    return invalid("retry_delays_ms");
  }
  constexpr std::uint32_t kDelayMsMax = 7 * 24 * 3'600'000U;
  for (const std::uint32_t delay : options.retry_delays_ms) {
    if (delay > kDelayMsMax) {
      return invalid("retry_delays_ms");
    }
  }
  if (options.jitter_percent > 100) {
    return invalid("jitter_percent");
  }
  if (options.retry_after_max_ms > kDelayMsMax) {
    return invalid("retry_after_max_ms");
  }
  const std::pair<std::uint32_t, const char*> positive[] = {
      {options.timeout_ms, "timeout_ms"},
      {options.connect_timeout_ms, "connect_timeout_ms"},
      {options.lane_in_flight_max, "lane_in_flight_max"},
      {options.lane_rate_per_s, "lane_rate_per_s"},
      {options.host_in_flight_max, "host_in_flight_max"},
      {options.host_rate_per_s, "host_rate_per_s"},
      {options.in_flight_max, "in_flight_max"},
      {options.waiting_max, "waiting_max"},
      {options.body_bytes_max, "body_bytes_max"},
      {options.response_header_bytes_max, "response_header_bytes_max"},
      {options.resolver_threads_max, "resolver_threads_max"},
      {options.dns_timeout_ms, "dns_timeout_ms"},
      {options.multi_handles, "multi_handles"},
  };
  for (const auto& option : positive) {
    if (option.first == 0) {
      return invalid(option.second);
    }
  }
  if (options.multi_handles > 64) {
    return invalid("multi_handles");
  }
  if (options.resolver_threads_max > 4096) {
    return invalid("resolver_threads_max");
  }
  const bool printable =
      std::all_of(options.user_agent.begin(), options.user_agent.end(),
                  [](char c) { return c >= ' ' && c <= '~'; });
  if (!printable || options.user_agent.size() > 256) {
    return invalid("user_agent");
  }
  return Ok{};
}

}  // namespace

struct Engine::Impl {
  EngineOptions options;
  EngineCounters counters;
  std::unique_ptr<EngineLoop> loop;  // loop thread; gone once stopped
  std::size_t in_flight_max = 0;

  std::mutex inbox_mutex;
  std::vector<Command> inbox;
  std::atomic<bool> inbox_filled{false};
  // The inbox may only wake a loop that is still there.
  EngineLoop* wakeable = nullptr;  // under inbox_mutex
  std::atomic<bool> sleeping{false};

  std::atomic<bool> driving{false};
  std::atomic<bool> stop_requested{false};
  std::atomic<bool> closed{false};  // no more admissions

  std::vector<std::string> unfinished;  // what stop() found; driver only
  std::vector<Attempt> leftover;  // finished, not yet fetched; driver only

  // Lock held.
  void wake_if_asleep() const {
    if (wakeable != nullptr && sleeping.load(std::memory_order_seq_cst)) {
      wakeable->wake();
    }
  }

  void push(Command command) {
    const std::lock_guard<std::mutex> lock(inbox_mutex);
    inbox.push_back(std::move(command));
    inbox_filled.store(true, std::memory_order_seq_cst);
    wake_if_asleep();
  }

  std::size_t admit(std::vector<Delivery>& deliveries);
  void take_inbox();
  std::size_t turn(std::int64_t wait_us);
  void run(std::int64_t until_us);
  void drain(std::int64_t until_us);
  void tear_down();
};

namespace {

// Whoever drives holds this; the flag is free again when it goes.
class DriverSeat {
 public:
  explicit DriverSeat(std::atomic<bool>& driving)
      : driving_(driving), taken_(!driving.exchange(true)) {}
  ~DriverSeat() {
    if (taken_) {
      driving_.store(false);
    }
  }
  DriverSeat(const DriverSeat&) = delete;
  DriverSeat& operator=(const DriverSeat&) = delete;
  explicit operator bool() const { return taken_; }

 private:
  std::atomic<bool>& driving_;
  bool taken_;
};

}  // namespace

// Lock held. Manual deliveries have a tenth of extra room: a test or a
// redelivery must work while the queue is full of something else.
std::size_t Engine::Impl::admit(std::vector<Delivery>& deliveries) {
  const std::uint64_t max = options.waiting_max;
  const std::uint64_t manual_max = max + max / 10 + 1;
  std::uint64_t waiting = counters.waiting.load(std::memory_order_relaxed);
  std::size_t taken = 0;
  for (Delivery& delivery : deliveries) {
    if (waiting >= (delivery.manual ? manual_max : max)) {
      break;
    }
    ++waiting;
    ++taken;
    inbox.emplace_back(std::move(delivery));
  }
  counters.waiting.fetch_add(taken, std::memory_order_relaxed);
  counters.submitted.fetch_add(taken, std::memory_order_relaxed);
  return taken;
}

void Engine::Impl::take_inbox() {
  if (!inbox_filled.load(std::memory_order_acquire)) {
    return;
  }
  std::vector<Command> commands;
  {
    const std::lock_guard<std::mutex> lock(inbox_mutex);
    commands.swap(inbox);
    inbox_filled.store(false, std::memory_order_seq_cst);
  }
  for (Command& command : commands) {
    if (auto* delivery = std::get_if<Delivery>(&command)) {
      loop->take(std::move(*delivery));
    } else if (auto* endpoint = std::get_if<Endpoint>(&command)) {
      loop->put(std::move(*endpoint));
    } else if (auto* gone = std::get_if<RemoveEndpoint>(&command)) {
      loop->remove(gone->webhook_id);
    }
  }
}

std::size_t Engine::Impl::turn(std::int64_t wait_us) {
  take_inbox();
  // Announced before the last look at the inbox: whoever fills it afterwards
  // sees us asleep and wakes us.
  sleeping.store(true, std::memory_order_seq_cst);
  if (inbox_filled.load(std::memory_order_seq_cst) || stop_requested.load()) {
    wait_us = 0;
  }
  const std::size_t events = loop->turn(wait_us);
  sleeping.store(false, std::memory_order_seq_cst);
  return events;
}

void Engine::Impl::run(std::int64_t until_us) {
  std::int64_t gather_until = 0;
  for (;;) {
    const std::int64_t now = EventLoop::now_us();
    const std::size_t events = turn(std::max<std::int64_t>(0, until_us - now));
    if (stop_requested.load(std::memory_order_acquire)) {
      return;
    }
    const std::int64_t after = EventLoop::now_us();
    if (!loop->finished().empty()) {
      if (gather_until == 0) {
        gather_until = after + kGatherUs;
      }
      if (events == 0 || after >= gather_until ||
          loop->finished().size() >= kGatherMax) {
        return;
      }
    }
    if (after >= until_us) {
      return;
    }
  }
}

void Engine::Impl::drain(std::int64_t until_us) {
  take_inbox();
  loop->close_admission();
  for (;;) {
    const std::int64_t now = EventLoop::now_us();
    if (!loop->has_in_flight() || now >= until_us) {
      return;
    }
    if (stop_requested.load(std::memory_order_acquire)) {
      return;
    }
    // Finished attempts pile up here instead of ending the turn: short waits.
    constexpr std::int64_t kStepUs = 20'000;
    loop->turn(std::min(until_us - now, kStepUs));
    auto& finished = loop->finished();
    std::move(finished.begin(), finished.end(), std::back_inserter(leftover));
    finished.clear();
  }
}

void Engine::Impl::tear_down() {
  auto& finished = loop->finished();
  std::move(finished.begin(), finished.end(), std::back_inserter(leftover));
  finished.clear();
  unfinished = loop->unfinished();
  {
    const std::lock_guard<std::mutex> lock(inbox_mutex);
    wakeable = nullptr;
  }
  loop.reset();
  counters.waiting.store(0, std::memory_order_relaxed);
  counters.in_flight.store(0, std::memory_order_relaxed);
  counters.lanes.store(0, std::memory_order_relaxed);
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() {
  if (impl_ && impl_->loop) {
    impl_->tear_down();
  }
}

Result<std::unique_ptr<Engine>> Engine::create(EngineOptions options) {
  const Status checked = check_options(options);
  if (!checked) {
    return checked.error();
  }
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  auto loop = EngineLoop::create(impl->options, impl->counters);
  if (!loop) {
    return loop.error();
  }
  impl->loop = std::move(loop).value();
  impl->wakeable = impl->loop.get();
  impl->in_flight_max = impl->loop->in_flight_max();
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Status Engine::put_endpoint(Endpoint endpoint) {
  if (impl_->closed.load()) {
    return Error{"stopped", {}};
  }
  impl_->push(std::move(endpoint));
  return Ok{};
}

Status Engine::delete_endpoint(std::string webhook_id) {
  if (impl_->closed.load()) {
    return Error{"stopped", {}};
  }
  impl_->push(RemoveEndpoint{std::move(webhook_id)});
  return Ok{};
}

Result<std::size_t> Engine::submit(std::vector<Delivery>& deliveries) {
  const std::lock_guard<std::mutex> lock(impl_->inbox_mutex);
  // Looked at under the lock that stop() takes: nothing slips in behind it.
  if (impl_->closed.load()) {
    return Error{"stopped", {}};
  }
  if (deliveries.empty()) {
    return std::size_t{0};
  }
  const std::size_t taken = impl_->admit(deliveries);
  if (taken == 0) {
    return Error{"overloaded", {}};
  }
  impl_->inbox_filled.store(true, std::memory_order_seq_cst);
  impl_->wake_if_asleep();
  return taken;
}

Status Engine::run_once(std::uint32_t max_wait_ms,
                        std::vector<Attempt>& finished) {
  const DriverSeat seat(impl_->driving);
  if (!seat) {
    return Error{"already_driven", {}};
  }
  std::vector<Attempt>* source = &impl_->leftover;
  if (source->empty() && impl_->loop) {
    source = &impl_->loop->finished();
  }
  if (source->empty()) {
    if (!impl_->loop || impl_->stop_requested.load()) {
      return Error{"stopped", {}};
    }
    const std::int64_t wait_us =
        std::int64_t{std::min(max_wait_ms, kWaitMsMax)} * 1000;
    impl_->run(EventLoop::now_us() + wait_us);
    source = &impl_->loop->finished();
  }
  finished.insert(finished.end(), std::make_move_iterator(source->begin()),
                  std::make_move_iterator(source->end()));
  source->clear();
  impl_->counters.finished_unread.store(0, std::memory_order_relaxed);
  return Ok{};
}

Result<std::vector<std::string>> Engine::stop(std::uint32_t drain_ms) {
  const DriverSeat seat(impl_->driving);
  if (!seat) {
    return Error{"already_driven", {}};
  }
  {
    const std::lock_guard<std::mutex> lock(impl_->inbox_mutex);
    impl_->closed.store(true);
  }
  if (impl_->loop) {
    impl_->drain(EventLoop::now_us() + std::int64_t{drain_ms} * 1000);
    impl_->tear_down();
  }
  return impl_->unfinished;
}

void Engine::request_stop() noexcept {
  impl_->stop_requested.store(true, std::memory_order_seq_cst);
  try {
    const std::lock_guard<std::mutex> lock(impl_->inbox_mutex);
    impl_->closed.store(true);
    if (impl_->wakeable != nullptr) {
      impl_->wakeable->wake();
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): the flag alone will do
  }
}

EngineStats Engine::stats() const {
  const EngineCounters& counters = impl_->counters;
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  EngineStats stats;
  stats.in_flight = get(counters.in_flight);
  stats.waiting = get(counters.waiting);
  stats.lanes = get(counters.lanes);
  stats.finished_unread = get(counters.finished_unread);
  stats.in_flight_max = impl_->in_flight_max;
  stats.submitted = get(counters.submitted);
  stats.attempts = get(counters.attempts);
  stats.delivered = get(counters.delivered);
  stats.retried = get(counters.retried);
  stats.parked = get(counters.parked);
  stats.failed = get(counters.failed);
  stats.cancelled = get(counters.cancelled);
  stats.connections_opened = get(counters.connections_opened);
  stats.resolver_threads = get(counters.resolver_threads);
  stats.resolver_stuck = get(counters.resolver_stuck);
  stats.loop_turns = get(counters.loop_turns);
  stats.stopped = impl_->closed.load();
  return stats;
}

}  // namespace webhooks
