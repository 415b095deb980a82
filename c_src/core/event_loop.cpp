#include "core/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <limits>

namespace webhooks {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t kEventsMax = 256;
constexpr std::uint64_t kWakeTag = std::numeric_limits<std::uint64_t>::max();

std::uint64_t tag_of(std::size_t shard, curl_socket_t descriptor) {
  return static_cast<std::uint64_t>(shard) << 32 |
         static_cast<std::uint32_t>(descriptor);
}

}  // namespace

std::int64_t EventLoop::now_us() noexcept {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Result<std::unique_ptr<EventLoop>> EventLoop::create(
    std::size_t multis, long idle_connections_max) {
  std::unique_ptr<EventLoop> loop(new EventLoop());
  if (!loop->open(multis, idle_connections_max)) {
    return Error{"system_limit", "no descriptor or memory for the event loop"};
  }
  return loop;
}

bool EventLoop::open_multi(Shard& shard) {
  shard.due_us = kNever;
  shard.broken = false;
  shard.multi.reset(curl_multi_init());
  CURLM* multi = shard.multi.get();
  return multi != nullptr &&
         curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket) ==
             CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, &shard) == CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer) ==
             CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_TIMERDATA, &shard) == CURLM_OK &&
         fit_connections(shard);
}

// curl's limit counts the connections that are at work, too: with more of them
// than it allows, each is closed as soon as it is idle. So it follows them.
bool EventLoop::fit_connections(const Shard& shard) const noexcept {
  return curl_multi_setopt(shard.multi.get(), CURLMOPT_MAXCONNECTS,
                           idle_connections_max_ + shard.handles) == CURLM_OK;
}

std::vector<std::size_t> EventLoop::take_broken() {
  std::vector<std::size_t> broken;
  for (const auto& shard : shards_) {
    if (shard->broken) {
      broken.push_back(shard->index);
    }
  }
  return broken;
}

bool EventLoop::rebuild(std::size_t multi) {
  return open_multi(*shards_[multi]);
}

bool EventLoop::open(std::size_t multis, long idle_connections_max) {
  idle_connections_max_ = idle_connections_max;
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || wake_ < 0) {
    return false;
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeTag;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) != 0) {
    return false;
  }
  for (std::size_t index = 0; index < multis; ++index) {
    auto shard = std::make_unique<Shard>();
    shard->loop = this;
    shard->index = index;
    if (!open_multi(*shard)) {
      return false;
    }
    shards_.push_back(std::move(shard));
  }
  return true;
}

EventLoop::~EventLoop() {
  // curl calls on_socket while a multi dies: epoll_ must still be there.
  shards_.clear();
  if (wake_ >= 0) {
    close(wake_);
  }
  if (epoll_ >= 0) {
    close(epoll_);
  }
}

void EventLoop::wake() noexcept {
  if (wake_pending_.exchange(true, std::memory_order_acq_rel)) {
    return;
  }
  const std::uint64_t one = 1;
  // A full counter would mean that a wake is pending anyway.
  static_cast<void>(!write(wake_, &one, sizeof one));
}

bool EventLoop::add(std::size_t multi, CURL* easy) {
  Shard& shard = *shards_[multi];
  if (curl_multi_add_handle(shard.multi.get(), easy) != CURLM_OK) {
    return false;
  }
  ++shard.handles;
  fit_connections(shard);
  return true;
}

void EventLoop::remove(std::size_t multi, CURL* easy) {
  Shard& shard = *shards_[multi];
  curl_multi_remove_handle(shard.multi.get(), easy);
  --shard.handles;
  fit_connections(shard);
}

// Must not call back into libcurl: only the deadline is noted. The extra
// millisecond: curl's own clock truncates, and firing a fraction too early
// makes it believe that the expiry was dealt with.
int EventLoop::on_timer(CURLM* /*multi*/, long timeout_ms,
                        void* data) noexcept {
  auto* shard = static_cast<Shard*>(data);
  if (timeout_ms < 0) {
    shard->due_us = kNever;
  } else if (timeout_ms == 0) {
    shard->due_us = now_us();
  } else {
    shard->due_us = now_us() + std::int64_t{timeout_ms} * 1000 + 1000;
  }
  return 0;
}

int EventLoop::on_socket(CURL* /*easy*/, curl_socket_t descriptor, int what,
                         void* data, void* /*unused*/) noexcept {
  auto* shard = static_cast<Shard*>(data);
  std::uint32_t events = 0;
  if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) {
    events |= EPOLLIN;
  }
  if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) {
    events |= EPOLLOUT;
  }
  shard->loop->watch(*shard, descriptor, events);
  return 0;
}

void EventLoop::watch(Shard& shard, curl_socket_t descriptor,
                      std::uint32_t events) noexcept {
  const auto slot = static_cast<std::size_t>(descriptor);
  if (slot >= watched_.size()) {
    if (events == 0) {
      return;
    }
    try {
      watched_.resize(slot + 64);
      wanted_.resize(slot + 64);
    } catch (...) {
      return;  // out of memory: this transfer will end by its timeout
    }
  }
  wanted_[slot] = events;
  // Interest that is no longer wanted stays registered: a connection that goes
  // back to work at once, as kept-alive ones do, then costs no system call. If
  // it does report something while unwanted, turn() takes it out.
  if (events == 0 || watched_[slot] == events) {
    return;
  }
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag_of(shard.index, descriptor);
  const int operation = watched_[slot] == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  int status = epoll_ctl(epoll_, operation, descriptor, &event);
  if (status != 0 && errno == ENOENT) {
    status = epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
  } else if (status != 0 && errno == EEXIST) {
    status = epoll_ctl(epoll_, EPOLL_CTL_MOD, descriptor, &event);
  }
  watched_[slot] = status == 0 ? events : 0;
}

void EventLoop::forget(curl_socket_t descriptor) noexcept {
  const auto slot = static_cast<std::size_t>(descriptor);
  if (slot >= watched_.size()) {
    return;
  }
  if (watched_[slot] != 0) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
  }
  watched_[slot] = 0;
  wanted_[slot] = 0;
}

// An idle connection has something to say. Mostly that it was closed; but an
// answer that nobody asked for would be taken for that of the next request
// (libcurl before 8.0 uses a connection again that has unread input). So what
// has come in goes, and curl finds the connection ended.
void EventLoop::retire(curl_socket_t descriptor) noexcept {
  const auto slot = static_cast<std::size_t>(descriptor);
  // Closed meanwhile: the number may be anybody's.
  if (watched_[slot] == 0) {
    return;
  }
  std::array<char, 4096> dropped;
  for (int i = 0; i < 16; ++i) {
    if (recv(descriptor, dropped.data(), dropped.size(), MSG_DONTWAIT) <= 0) {
      break;
    }
  }
  shutdown(descriptor, SHUT_RDWR);
  forget(descriptor);
}

void EventLoop::act(Shard& shard, curl_socket_t descriptor, int flags) {
  if (!shard.touched) {
    shard.touched = true;
    touched_.push_back(&shard);
  }
  int running = 0;
  const CURLMcode code =
      curl_multi_socket_action(shard.multi.get(), descriptor, flags, &running);
  // An unknown socket is a stale event; anything else and the multi is lost.
  if (code != CURLM_OK && code != CURLM_BAD_SOCKET) {
    shard.broken = true;
  }
}

void EventLoop::fire_timers(std::int64_t now) {
  for (const auto& shard : shards_) {
    if (shard->due_us > now) {
      continue;
    }
    shard->due_us = kNever;
    act(*shard, CURL_SOCKET_TIMEOUT, 0);
    if (shard->due_us != kNever) {
      continue;
    }
    // Not announced again does not mean that there is none.
    long timeout_ms = -1;
    curl_multi_timeout(shard->multi.get(), &timeout_ms);
    if (timeout_ms >= 0) {
      shard->due_us = now + std::int64_t{timeout_ms} * 1000 + 1000;
    }
  }
}

void EventLoop::reap(const Done& done) {
  for (Shard* shard : touched_) {
    shard->touched = false;
    int left = 0;
    while (const CURLMsg* message =
               curl_multi_info_read(shard->multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) {
        continue;
      }
      // The message dies with the removal.
      CURL* easy = message->easy_handle;
      const CURLcode code = message->data.result;
      curl_multi_remove_handle(shard->multi.get(), easy);
      --shard->handles;
      fit_connections(*shard);
      done(easy, code);
    }
  }
  touched_.clear();
}

std::int64_t EventLoop::next_timer_us() const noexcept {
  std::int64_t next = kNever;
  for (const auto& shard : shards_) {
    next = std::min(next, shard->due_us);
  }
  return next;
}

std::size_t EventLoop::turn(std::int64_t wait_us, const Done& done) {
  fire_timers(now_us());
  // What the timers finished may let the caller start more: no waiting then.
  if (!touched_.empty()) {
    reap(done);
    wait_us = 0;
  }
  const std::int64_t next = next_timer_us();
  if (next != kNever) {
    wait_us = std::clamp<std::int64_t>(next - now_us(), 0, wait_us);
  }
  std::array<epoll_event, kEventsMax> events;
  // Rounded up: a wait cut to the millisecond below would spin until the time.
  const int wait_ms = static_cast<int>((wait_us + 999) / 1000);
  const int count = epoll_wait(epoll_, events.data(), kEventsMax, wait_ms);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 == kWakeTag) {
      std::uint64_t ignored = 0;
      static_cast<void>(!read(wake_, &ignored, sizeof ignored));
      wake_pending_.store(false, std::memory_order_release);
      continue;
    }
    const auto descriptor =
        static_cast<curl_socket_t>(event.data.u64 & 0xffffffffU);
    Shard& shard = *shards_[static_cast<std::size_t>(event.data.u64 >> 32)];
    const auto slot = static_cast<std::size_t>(descriptor);
    if (wanted_[slot] == 0) {
      // Being writable is nothing to say: only the interest was left over.
      const bool only_writable = (event.events & ~EPOLLOUT) == 0;
      if (only_writable) {
        watch(shard, descriptor, EPOLLIN);
        wanted_[slot] = 0;
      } else {
        retire(descriptor);
      }
      continue;
    }
    int flags = 0;
    if ((event.events & EPOLLIN) != 0) {
      flags |= CURL_CSELECT_IN;
    }
    if ((event.events & EPOLLOUT) != 0) {
      flags |= CURL_CSELECT_OUT;
    }
    if ((event.events & (EPOLLERR | EPOLLHUP)) != 0) {
      flags |= CURL_CSELECT_IN | CURL_CSELECT_ERR;
    }
    act(shard, descriptor, flags);
  }
  reap(done);
  return count > 0 ? static_cast<std::size_t>(count) : 0;
}

}  // namespace webhooks
