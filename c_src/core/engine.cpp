// The outer side of the engine: the admission queue, who may drive, stopping.
#include "webhooks/engine.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>
#include <utility>
#include <variant>

#include "core/clock.hpp"
#include "core/engine_loop.hpp"
#include "core/report.hpp"

namespace webhooks {
namespace {

// Once there is a report, the loop goes on with ready events for this long: the
// caller needs a third of the time for a list of results that it needs for
// single ones, and nobody notices such a delay.
constexpr std::int64_t kGatherUs = 2'000;
constexpr std::size_t kGatherMax = 512;
constexpr std::uint32_t kWaitMsMax = 1'000;
// Commands taken from the inbox at a time: the loop's sockets wait meanwhile.
constexpr std::size_t kCommandsMax = 2'000;
constexpr std::size_t kSlowSlicesMax = 100;  // not yet fetched

struct RemoveEndpoint {
  std::string webhook_id;
};
using Command = std::variant<Delivery, Endpoint, RemoveEndpoint>;

}  // namespace

struct Engine::Impl {
  std::uint64_t waiting_max = 0;
  std::uint64_t waiting_bytes_max = 0;
  Report report;
  std::unique_ptr<EngineLoop> loop;  // driver only; gone once stopped

  std::mutex inbox_mutex;
  std::vector<Command> inbox;
  std::uint64_t submitted = 0;  // under inbox_mutex
  std::atomic<bool> inbox_filled{false};
  // Out of the inbox, the first `commands_done` of them carried out; driver
  // only.
  std::vector<Command> commands;
  std::size_t commands_done = 0;
  // The inbox may only wake a loop that is still there.
  EngineLoop* wakeable = nullptr;  // under inbox_mutex
  // With `inbox_filled` and `stop_requested` it needs one order of all stores
  // and loads: who fills the inbox writes that and then reads this, who goes to
  // sleep writes this and then reads that, and one of them must see the other.
  std::atomic<bool> sleeping{false};

  std::mutex driver_seat;  // held by who drives
  std::atomic<bool> stop_requested{false};
  std::atomic<bool> closed{false};  // no more admissions

  std::vector<std::string> unfinished;  // what stop() found; driver only

  std::mutex stats_mutex;
  // As published; under stats_mutex.
  EngineStats stats;
  std::vector<SlowSlice> slow_slices;

  // Lock held.
  void wake_if_asleep() const {
    if (wakeable != nullptr && sleeping.load(std::memory_order_seq_cst)) {
      wakeable->wake();
    }
  }

  // `closed` is read under the lock that stop() takes, so nothing is accepted
  // after stop().
  Status push(Command command) {
    const std::lock_guard<std::mutex> lock(inbox_mutex);
    if (closed.load()) {
      return Error{"stopped", {}};
    }
    inbox.push_back(std::move(command));
    inbox_filled.store(true, std::memory_order_seq_cst);
    wake_if_asleep();
    return Ok{};
  }

  std::size_t admit(std::vector<Delivery>& deliveries);
  bool take_inbox();
  std::size_t step(std::int64_t wait_us);
  void run(std::int64_t until_us);
  void drain(std::int64_t until_us);
  void publish();
  void tear_down();
};

// Lock held. Manual deliveries have a tenth of extra room: a test or a
// redelivery must work while the queue is full of something else.
std::size_t Engine::Impl::admit(std::vector<Delivery>& deliveries) {
  const std::uint64_t waiting = report.waiting.count();
  const std::uint64_t waiting_bytes = report.waiting.bytes();
  std::uint64_t bytes = 0;
  std::size_t taken = 0;
  try {
    for (Delivery& delivery : deliveries) {
      const auto most = [&delivery](std::uint64_t max) {
        return delivery.manual ? max + max / 10 + 1 : max;
      };
      const std::uint64_t size = Waiting::bytes_of(delivery);
      if (waiting + taken >= most(waiting_max) ||
          waiting_bytes + bytes + size > most(waiting_bytes_max)) {
        break;
      }
      inbox.emplace_back(std::move(delivery));
      bytes += size;
      ++taken;
    }
  } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch)
    // Those before are in, and this one has not been moved.
  }
  report.waiting.add(taken, bytes);
  submitted += taken;
  return taken;
}

// True: there is more.
bool Engine::Impl::take_inbox() {
  if (commands_done == commands.size()) {
    commands = std::vector<Command>();  // gives its memory back, too
    commands_done = 0;
    if (!inbox_filled.load(std::memory_order_acquire)) {
      return false;
    }
    const std::lock_guard<std::mutex> lock(inbox_mutex);
    commands.swap(inbox);
    inbox_filled.store(false, std::memory_order_seq_cst);
  }
  const std::size_t end =
      std::min(commands.size(), commands_done + kCommandsMax);
  while (commands_done < end) {
    Command& command = commands[commands_done++];
    if (auto* delivery = std::get_if<Delivery>(&command)) {
      loop->take(std::move(*delivery));
    } else if (auto* endpoint = std::get_if<Endpoint>(&command)) {
      loop->put(std::move(*endpoint));
    } else if (auto* gone = std::get_if<RemoveEndpoint>(&command)) {
      loop->remove(gone->webhook_id);
    }
  }
  return end < commands.size() || inbox_filled.load(std::memory_order_acquire);
}

std::size_t Engine::Impl::step(std::int64_t wait_us) {
  const bool more = take_inbox();
  // Announced before the last look at the inbox: whoever fills it afterwards
  // sees us asleep and wakes us.
  sleeping.store(true, std::memory_order_seq_cst);
  if (more || inbox_filled.load(std::memory_order_seq_cst) ||
      stop_requested.load(std::memory_order_seq_cst)) {
    wait_us = 0;
  }
  const std::size_t events = loop->step(wait_us);
  sleeping.store(false, std::memory_order_seq_cst);
  publish();
  return events;
}

void Engine::Impl::publish() {
  report.stats.finished_unread = report.finished.size();
  const std::lock_guard<std::mutex> lock(stats_mutex);
  stats = report.stats;
  for (SlowSlice& slice : report.slow_slices) {
    if (slow_slices.size() < kSlowSlicesMax) {
      slow_slices.push_back(std::move(slice));
    }
  }
  report.slow_slices.clear();
}

void Engine::Impl::run(std::int64_t until_us) {
  std::int64_t gather_until = 0;
  for (;;) {
    const std::int64_t before = steady_now_us();
    const std::size_t events =
        step(std::max<std::int64_t>(0, until_us - before));
    const std::int64_t now = steady_now_us();
    if (stop_requested.load(std::memory_order_acquire) || now >= until_us) {
      return;
    }
    const std::size_t finished = report.finished.size();
    if (finished == 0) {
      continue;
    }
    if (gather_until == 0) {
      gather_until = now + kGatherUs;
    }
    if (events == 0 || now >= gather_until || finished >= kGatherMax) {
      return;
    }
  }
}

void Engine::Impl::drain(std::int64_t until_us) {
  while (take_inbox()) {
  }
  loop->close_admission();
  for (;;) {
    const std::int64_t left_us = until_us - steady_now_us();
    if (!loop->has_in_flight() || left_us <= 0 ||
        stop_requested.load(std::memory_order_acquire)) {
      return;
    }
    loop->step(left_us);
    publish();
  }
}

void Engine::Impl::tear_down() {
  unfinished = loop->unfinished();
  {
    const std::lock_guard<std::mutex> lock(inbox_mutex);
    wakeable = nullptr;
  }
  loop.reset();
  report.waiting.clear();
  report.stats.in_flight = report.stats.lanes = 0;
  publish();
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
  impl->waiting_max = options.waiting_max;
  impl->waiting_bytes_max = options.waiting_bytes_max;
  auto loop = EngineLoop::create(std::move(options), impl->report);
  if (!loop) {
    return loop.error();
  }
  impl->loop = std::move(loop).value();
  impl->wakeable = impl->loop.get();
  impl->publish();
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Status Engine::put_endpoint(Endpoint endpoint) {
  return impl_->push(std::move(endpoint));
}

Status Engine::delete_endpoint(std::string webhook_id) {
  return impl_->push(RemoveEndpoint{std::move(webhook_id)});
}

Result<std::size_t> Engine::submit(std::vector<Delivery>& deliveries) {
  const std::lock_guard<std::mutex> lock(impl_->inbox_mutex);
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
  const std::unique_lock seat(impl_->driver_seat, std::try_to_lock);
  if (!seat) {
    return Error{"already_driven", {}};
  }
  std::vector<Attempt>& ready = impl_->report.finished;
  if (ready.empty()) {
    if (!impl_->loop || impl_->stop_requested.load()) {
      return Error{"stopped", {}};
    }
    const std::int64_t wait_us =
        std::int64_t{std::min(max_wait_ms, kWaitMsMax)} * 1000;
    impl_->run(steady_now_us() + wait_us);
  }
  finished.insert(finished.end(), std::make_move_iterator(ready.begin()),
                  std::make_move_iterator(ready.end()));
  ready.clear();
  impl_->publish();
  return Ok{};
}

Result<std::vector<std::string>> Engine::stop(std::uint32_t drain_ms) {
  const std::unique_lock seat(impl_->driver_seat, std::try_to_lock);
  if (!seat) {
    return Error{"already_driven", {}};
  }
  {
    const std::lock_guard<std::mutex> lock(impl_->inbox_mutex);
    impl_->closed.store(true);
  }
  if (impl_->loop) {
    impl_->drain(steady_now_us() + std::int64_t{drain_ms} * 1000);
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

std::vector<SlowSlice> Engine::slow_slices() {
  const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
  return std::exchange(impl_->slow_slices, {});
}

EngineStats Engine::stats() const {
  EngineStats stats;
  {
    const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
    stats = impl_->stats;
  }
  const std::lock_guard<std::mutex> lock(impl_->inbox_mutex);
  stats.submitted = impl_->submitted;
  stats.waiting = impl_->report.waiting.count();
  stats.waiting_bytes = impl_->report.waiting.bytes();
  stats.stopped = impl_->closed.load();
  return stats;
}

}  // namespace webhooks
