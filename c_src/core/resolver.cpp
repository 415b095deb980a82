#include "webhooks/resolver.hpp"

#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "core/clock.hpp"

namespace webhooks {
namespace {

using Clock = std::chrono::steady_clock;

// glibc's resolver keeps up to 64 KiB on the stack, musl less.
constexpr std::size_t kStackBytes = std::size_t{256} * 1024;
constexpr std::size_t kAddressesMax = 64;
constexpr std::size_t kCacheEntriesMax = 16'384;
constexpr std::int64_t kFailureCacheUs = 2'000'000;
constexpr std::int64_t kSuspectUs = 600'000'000;
constexpr std::int64_t kStaleFactor = 10;
constexpr auto kSlowAfter = std::chrono::milliseconds(300);
constexpr auto kIdleThread = std::chrono::seconds(10);

// How a name is trusted decides which share of the threads it may use.
enum class Trust : std::uint8_t { kGood, kUnknown, kSuspect };
constexpr std::size_t kTrustLevels = 3;

struct Answer {
  std::string host;
  Resolution resolution;
};

struct Job {
  std::string host;
  Trust trust = Trust::kUnknown;
};

// What the lookup threads share with the loop. Held by shared_ptr: a thread
// that hangs in getaddrinfo may outlive the Resolver by half a minute.
struct Shared {
  std::mutex mutex;
  std::condition_variable work;
  std::deque<Job> queues[kTrustLevels];
  std::vector<Answer> answers;
  std::unordered_map<std::string, Clock::time_point> running;
  std::size_t running_by_trust[kTrustLevels] = {};
  std::size_t threads = 0;
  std::size_t idle = 0;
  std::size_t threads_max = 0;
  std::size_t active_max = 0;
  bool closed = false;
  ResolveFunction resolve;
  std::function<void()> wake;

  std::size_t share_of(Trust trust) const {
    switch (trust) {
      case Trust::kGood:
        return threads_max;
      case Trust::kUnknown:
        return std::max<std::size_t>(1, threads_max * 3 / 4);
      case Trust::kSuspect:
        break;
    }
    return std::max<std::size_t>(1, threads_max / 4);
  }

  std::size_t active(Clock::time_point now) const {
    std::size_t count = 0;
    for (const auto& entry : running) {
      if (now - entry.second < kSlowAfter) {
        ++count;
      }
    }
    return count;
  }

  // The queue to serve next, or kTrustLevels when none may be served.
  std::size_t servable() const {
    for (std::size_t level = 0; level < kTrustLevels; ++level) {
      if (!queues[level].empty() &&
          running_by_trust[level] < share_of(static_cast<Trust>(level))) {
        return level;
      }
    }
    return kTrustLevels;
  }

  std::size_t servable_jobs() const {
    std::size_t count = 0;
    for (std::size_t level = 0; level < kTrustLevels; ++level) {
      const std::size_t share = share_of(static_cast<Trust>(level));
      count += std::min(queues[level].size(),
                        share - std::min(share, running_by_trust[level]));
    }
    return count;
  }
};

void run_job(Shared& shared, std::unique_lock<std::mutex>& lock,
             std::size_t level) {
  Job job = std::move(shared.queues[level].front());
  shared.queues[level].pop_front();
  shared.running.emplace(job.host, Clock::now());
  ++shared.running_by_trust[level];
  lock.unlock();
  Resolution resolution;
  try {
    resolution = shared.resolve(job.host);
  } catch (...) {
    resolution.addresses.clear();
    resolution.failure = "the lookup failed";
  }
  lock.lock();
  shared.running.erase(job.host);
  --shared.running_by_trust[level];
  shared.answers.push_back({std::move(job.host), std::move(resolution)});
  if (!shared.closed && shared.wake) {
    shared.wake();
  }
}

void serve(Shared& shared) {
  std::unique_lock<std::mutex> lock(shared.mutex);
  while (!shared.closed) {
    const std::size_t level = shared.servable();
    if (level != kTrustLevels) {
      run_job(shared, lock, level);
      continue;
    }
    ++shared.idle;
    const auto woken = shared.work.wait_for(lock, kIdleThread);
    --shared.idle;
    if (woken == std::cv_status::timeout && shared.servable() == kTrustLevels) {
      break;
    }
  }
  --shared.threads;
}

extern "C" void* webhooks_resolver_thread(void* argument) {
  const std::unique_ptr<std::shared_ptr<Shared>> shared(
      static_cast<std::shared_ptr<Shared>*>(argument));
  try {
    serve(**shared);
  } catch (...) {  // bad_alloc: this thread ends, its name times out
    try {
      const std::lock_guard<std::mutex> lock((*shared)->mutex);
      --(*shared)->threads;
    } catch (...) {  // NOLINT(bugprone-empty-catch): nothing left to do
    }
  }
  return nullptr;
}

// Signals of the process are the VM's business, not that of these threads.
bool start_thread(const std::shared_ptr<Shared>& shared) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) {
    return false;
  }
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  auto argument = std::make_unique<std::shared_ptr<Shared>>(shared);
  pthread_t thread;
  const bool started =
      pthread_create(&thread, &attributes, webhooks_resolver_thread,
                     argument.get()) == 0;
  if (started) {
    static_cast<void>(argument.release());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

struct Entry {
  Resolution resolution;
  std::int64_t answered_us = 0;
  std::int64_t asked_us = 0;  // when the running lookup was asked for
  std::int64_t suspect_until_us = 0;
  std::int64_t refresh_us = 0;  // after a failed refresh: not before
  bool answered = false;        // there is a resolution
  bool running = false;         // a lookup is queued or under way
  bool waited_for = false;      // somebody got kPending
  bool timed_out = false;       // the deadline of the running lookup is over
};

}  // namespace

Resolution resolve_with_getaddrinfo(const std::string& host) {
  Resolution resolution;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int code = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (code != 0) {
    resolution.failure = gai_strerror(code);
    return resolution;
  }
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    const auto address = IpAddress::from_sockaddr(entry->ai_addr);
    if (address && resolution.addresses.size() < kAddressesMax) {
      resolution.addresses.push_back(*address);
    }
  }
  freeaddrinfo(list);
  if (resolution.addresses.empty()) {
    resolution.failure = "the name has no address";
  }
  return resolution;
}

struct Resolver::Impl {
  ResolverOptions options;
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  std::unordered_map<std::string, Entry> entries;
  std::vector<std::string> open;  // names with a running lookup

  std::int64_t deadline_us(const Entry& entry) const {
    return entry.asked_us + std::int64_t{options.deadline_ms} * 1000;
  }
  std::int64_t fresh_us(const Entry& entry) const {
    return entry.resolution.addresses.empty()
               ? kFailureCacheUs
               : std::int64_t{options.cache_ms} * 1000;
  }

  Trust trust_of(const Entry& entry, std::int64_t now) const {
    if (entry.suspect_until_us > now) {
      return Trust::kSuspect;
    }
    const bool worked = entry.answered && !entry.resolution.addresses.empty();
    return worked ? Trust::kGood : Trust::kUnknown;
  }

  void ask(const std::string& host, Entry& entry, std::int64_t now) {
    entry.running = true;
    entry.timed_out = false;
    entry.asked_us = now;
    open.push_back(host);
    const Trust trust = trust_of(entry, now);
    const std::lock_guard<std::mutex> lock(shared->mutex);
    shared->queues[static_cast<std::size_t>(trust)].push_back({host, trust});
    engage();
  }

  // Lock held. Wakes idle threads and starts new ones, as far as the limits
  // let. As many at once as there is room for: when a wave of lookups has
  // turned slow, one thread per look would be a queue of its own.
  void engage() {
    std::size_t wanted = shared->servable_jobs();
    if (wanted == 0) {
      return;
    }
    for (std::size_t i = std::min(wanted, shared->idle); i > 0; --i) {
      shared->work.notify_one();
    }
    const std::size_t coming =
        shared->threads - std::min(shared->threads, shared->running.size());
    std::size_t active = shared->active(Clock::now()) + coming;
    for (wanted -= std::min(wanted, coming); wanted > 0; --wanted) {
      if (shared->threads >= shared->threads_max) {
        return;
      }
      if (active >= shared->active_max || !start_thread(shared)) {
        return;
      }
      ++shared->threads;
      ++active;
    }
  }

  void take_in(Answer answer, std::int64_t now,
               std::vector<std::string>& settled) {
    const auto found = entries.find(answer.host);
    if (found == entries.end()) {
      return;
    }
    Entry& entry = found->second;
    const bool failed = answer.resolution.addresses.empty();
    // A refresh that fails does not take a usable answer away.
    const bool keep = failed && entry.answered &&
                      !entry.resolution.addresses.empty() && usable(entry, now);
    if (keep) {
      entry.refresh_us = now + kFailureCacheUs;
    } else {
      entry.resolution = std::move(answer.resolution);
      entry.answered_us = now;
      entry.answered = true;
    }
    if (!failed && !entry.timed_out) {
      entry.suspect_until_us = 0;
    }
    entry.running = false;
    entry.timed_out = false;
    if (entry.waited_for) {
      entry.waited_for = false;
      settled.push_back(answer.host);
    }
  }

  bool usable(const Entry& entry, std::int64_t now) const {
    if (!entry.answered) {
      return false;
    }
    const std::int64_t age = now - entry.answered_us;
    const bool good = !entry.resolution.addresses.empty();
    return age <= fresh_us(entry) * (good ? kStaleFactor : 1);
  }

  // The oldest answers go first; names in use come back at their next attempt.
  void evict(std::int64_t now) {
    if (entries.size() < kCacheEntriesMax) {
      return;
    }
    for (auto it = entries.begin(); it != entries.end();) {
      const bool idle = !it->second.running && !it->second.waited_for;
      const bool old =
          !usable(it->second, now) && it->second.suspect_until_us <= now;
      it = idle && old ? entries.erase(it) : std::next(it);
    }
    for (auto it = entries.begin();
         it != entries.end() && entries.size() >= kCacheEntriesMax;) {
      const bool idle = !it->second.running && !it->second.waited_for;
      it = idle ? entries.erase(it) : std::next(it);
    }
  }
};

Resolver::Resolver(ResolverOptions options) : impl_(std::make_unique<Impl>()) {
  if (!options.resolve) {
    options.resolve = resolve_with_getaddrinfo;
  }
  impl_->shared->resolve = options.resolve;
  impl_->shared->wake = options.wake;
  impl_->shared->threads_max = std::max<std::uint32_t>(1, options.threads_max);
  impl_->shared->active_max = std::max<std::uint32_t>(1, options.active_max);
  impl_->options = std::move(options);
}

Resolver::~Resolver() {
  const std::lock_guard<std::mutex> lock(impl_->shared->mutex);
  impl_->shared->closed = true;
  // The wake function belongs to whoever is going away now.
  impl_->shared->wake = nullptr;
  impl_->shared->work.notify_all();
}

Resolver::Lookup Resolver::lookup(const std::string& host, std::int64_t now) {
  auto found = impl_->entries.find(host);
  if (found == impl_->entries.end()) {
    impl_->evict(now);
    found = impl_->entries.emplace(host, Entry{}).first;
  }
  Entry& entry = found->second;
  const bool usable = impl_->usable(entry, now);
  const bool fresh =
      usable && now - entry.answered_us <= impl_->fresh_us(entry);
  const bool due = !usable || now >= entry.refresh_us;
  if (!fresh && due && !entry.running) {
    impl_->ask(host, entry, now);
  }
  if (usable) {
    const bool good = !entry.resolution.addresses.empty();
    return {good ? State::kKnown : State::kFailed, &entry.resolution};
  }
  // A lookup that hangs goes on hanging for the whole of getaddrinfo's
  // patience; who asks in the meantime is told at once, not after a deadline.
  if (entry.timed_out) {
    return {State::kTimedOut, nullptr};
  }
  entry.waited_for = true;
  return {State::kPending, nullptr};
}

std::vector<std::string> Resolver::settle(std::int64_t now) {
  std::vector<std::string> settled;
  std::vector<Answer> answers;
  {
    const std::lock_guard<std::mutex> lock(impl_->shared->mutex);
    answers.swap(impl_->shared->answers);
    // Lookups turn slow by mere time: room for others that nobody announced.
    impl_->engage();
  }
  for (Answer& answer : answers) {
    impl_->take_in(std::move(answer), now, settled);
  }
  const auto is_running = [this](const std::string& host) {
    const std::lock_guard<std::mutex> lock(impl_->shared->mutex);
    return impl_->shared->running.count(host) != 0;
  };
  std::erase_if(impl_->open, [&](const std::string& host) {
    const auto found = impl_->entries.find(host);
    if (found == impl_->entries.end() || !found->second.running) {
      return true;
    }
    Entry& entry = found->second;
    if (now < impl_->deadline_us(entry)) {
      return false;
    }
    entry.timed_out = true;
    // A name that found no thread in time has not been seen to hang.
    if (is_running(host)) {
      entry.suspect_until_us = now + kSuspectUs;
    }
    if (entry.waited_for) {
      entry.waited_for = false;
      settled.push_back(host);
    }
    return true;
  });
  return settled;
}

std::int64_t Resolver::next_deadline_us() const {
  std::int64_t next = kNever;
  for (const std::string& host : impl_->open) {
    const auto found = impl_->entries.find(host);
    if (found == impl_->entries.end()) {
      continue;
    }
    next = std::min(next, impl_->deadline_us(found->second));
  }
  if (next == kNever) {
    return next;
  }
  // While names queue up, look again when running lookups turn slow.
  const std::lock_guard<std::mutex> lock(impl_->shared->mutex);
  if (impl_->shared->servable() != kTrustLevels) {
    constexpr std::int64_t kLookAgainUs = 50'000;
    next = std::min(next, steady_now_us() + kLookAgainUs);
  }
  return next;
}

std::size_t Resolver::threads() const {
  const std::lock_guard<std::mutex> lock(impl_->shared->mutex);
  return impl_->shared->threads;
}

std::size_t Resolver::stuck() const {
  const auto deadline = std::chrono::milliseconds(impl_->options.deadline_ms);
  const std::lock_guard<std::mutex> lock(impl_->shared->mutex);
  const auto now = Clock::now();
  std::size_t count = 0;
  for (const auto& entry : impl_->shared->running) {
    if (now - entry.second >= deadline) {
      ++count;
    }
  }
  return count;
}

}  // namespace webhooks
