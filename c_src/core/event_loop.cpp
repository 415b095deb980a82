#include "core/event_loop.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/clock.hpp"

namespace webhooks {
namespace {

constexpr std::size_t kEventsMax = 256;
constexpr std::uint64_t kWakeTag = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kOtherShard = 0x7fffffff;  // none of curl's
// An ordinary answer is read in fewer turns than this, and its bytes are never
// asked for. curl reads some 100 KiB at most in each.
constexpr std::uint32_t kReadsUncounted = 4;

// Of a TCP connection. The structure belongs to Linux and only ever grows at
// its end. glibc's header lacks this member, and the kernel's header collides
// with glibc's. 0: unknown.
std::uint64_t received_bytes(int descriptor) {
  constexpr std::size_t kOffset = 128;  // tcpi_bytes_received
  std::array<char, kOffset + sizeof(std::uint64_t)> info{};
  auto size = static_cast<socklen_t>(info.size());
  std::uint64_t bytes = 0;
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, info.data(), &size) == 0 &&
      size == info.size()) {
    std::memcpy(&bytes, info.data() + kOffset, sizeof bytes);
  }
  return bytes;
}

std::uint64_t tag_of(std::size_t shard, curl_socket_t descriptor) {
  return static_cast<std::uint64_t>(shard) << 32 |
         static_cast<std::uint32_t>(descriptor);
}

// The extra millisecond: curl's own clock truncates, and firing a fraction too
// early makes it believe that the expiry was dealt with.
std::int64_t due_us(std::int64_t now_us, long timeout_ms) {
  if (timeout_ms <= 0) {
    return timeout_ms == 0 ? now_us : kNever;
  }
  return now_us + std::int64_t{timeout_ms} * 1000 + 1000;
}

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::create(const Limits& limits) {
  std::unique_ptr<EventLoop> loop(new EventLoop());
  if (!loop->open(limits)) {
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

// curl's limit includes the connections that are at work: with more of these
// than the limit, each is closed as soon as it is idle. So the limit follows.
bool EventLoop::fit_connections(const Shard& shard) const noexcept {
  return curl_multi_setopt(shard.multi.get(), CURLMOPT_MAXCONNECTS,
                           limits_.idle_connections_max + shard.handles) ==
         CURLM_OK;
}

std::vector<std::size_t> EventLoop::broken() const {
  std::vector<std::size_t> broken;
  for (const auto& shard : shards_) {
    if (shard->broken) {
      broken.push_back(shard->index);
    }
  }
  return broken;
}

bool EventLoop::open(const Limits& limits) {
  limits_ = limits;
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
  for (std::size_t index = 0; index < limits.multis; ++index) {
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
  // In one order with what the caller wrote before and the loop reads
  // afterwards: otherwise a wake that is over could pass for one that is
  // pending, and the loop would miss the reason for this one.
  if (wake_pending_.exchange(true, std::memory_order_seq_cst)) {
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

// Must not call back into libcurl: only the deadline is noted.
int EventLoop::on_timer(CURLM* /*multi*/, long timeout_ms,
                        void* data) noexcept {
  auto* shard = static_cast<Shard*>(data);
  shard->due_us = due_us(steady_now_us(), timeout_ms);
  return 0;
}

int EventLoop::on_socket(CURL* easy, curl_socket_t descriptor, int what,
                         void* data, void* /*unused*/) noexcept {
  auto* shard = static_cast<Shard*>(data);
  const bool in = what == CURL_POLL_IN || what == CURL_POLL_INOUT;
  const bool out = what == CURL_POLL_OUT || what == CURL_POLL_INOUT;
  shard->loop->watch(*shard, easy, descriptor,
                     (in ? std::uint32_t{EPOLLIN} : 0U) |
                         (out ? std::uint32_t{EPOLLOUT} : 0U));
  return 0;
}

// epoll's view may differ from ours: libcurl closes descriptors without telling
// us, and their numbers are reused.
bool EventLoop::tell_epoll(int descriptor, std::uint32_t events,
                           std::uint64_t tag, bool known) noexcept {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  const int operation = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  int status = epoll_ctl(epoll_, operation, descriptor, &event);
  if (status != 0 && errno == ENOENT) {
    status = epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
  } else if (status != 0 && errno == EEXIST) {
    status = epoll_ctl(epoll_, EPOLL_CTL_MOD, descriptor, &event);
  }
  return status == 0;
}

void EventLoop::watch(Shard& shard, CURL* easy, curl_socket_t descriptor,
                      std::uint32_t events) noexcept {
  Interest* const found = interest_in(descriptor);
  if (found == nullptr) {
    return;  // this transfer ends by its timeout
  }
  Interest& interest = *found;
  interest.wanted = events;
  CURL* const user = events == 0 ? nullptr : easy;
  if (std::exchange(interest.easy, user) != user) {
    interest.reads = 0;
  }
  if (events == 0 && interest.retired) {
    end_idle(descriptor);
    return;
  }
  // Interest that is no longer wanted stays registered: a kept-alive connection
  // that goes back to work at once then costs no system call.
  if (events == 0 || interest.watched == events) {
    return;
  }
  const bool told =
      tell_epoll(descriptor, events, tag_of(shard.index, descriptor),
                 interest.watched != 0);
  interest.watched = told ? events : 0;
}

void EventLoop::watch_other(int descriptor, bool in, bool out) noexcept {
  const std::uint32_t events =
      (in ? std::uint32_t{EPOLLIN} : 0U) | (out ? std::uint32_t{EPOLLOUT} : 0U);
  if (events == 0) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
  } else {
    tell_epoll(descriptor, events, tag_of(kOtherShard, descriptor), false);
  }
}

void EventLoop::opened(curl_socket_t descriptor, const Peer& peer) noexcept {
  ++opened_;
  forget(descriptor);
  if (Interest* const interest = interest_in(descriptor)) {
    interest->peer = peer;
  }
}

// Null: out of memory.
EventLoop::Interest* EventLoop::interest_in(curl_socket_t descriptor) noexcept {
  const auto slot = static_cast<std::size_t>(descriptor);
  try {
    if (slot >= interests_.size()) {
      interests_.resize(slot + 64);
    }
    return &interests_[slot];
  } catch (...) {
    return nullptr;
  }
}

void EventLoop::retire(std::size_t host,
                       const std::vector<IpAddress>& addresses) {
  for (std::size_t slot = 0; slot < interests_.size(); ++slot) {
    Interest& interest = interests_[slot];
    if (interest.peer.host != host ||
        std::ranges::find(addresses, interest.peer.address) !=
            addresses.end()) {
      continue;
    }
    if (interest.wanted == 0) {
      end_idle(static_cast<curl_socket_t>(slot));
    } else {
      interest.retired = true;
    }
  }
}

// Ends a connection that is curl's and that nobody uses at the moment. curl
// finds it ended when it wants to use it again.
void EventLoop::end_idle(curl_socket_t descriptor) noexcept {
  shutdown(descriptor, SHUT_RDWR);
  forget(descriptor);
}

int EventLoop::on_close_socket(void* loop, curl_socket_t descriptor) noexcept {
  static_cast<EventLoop*>(loop)->forget(descriptor);
  return close(descriptor);
}

void EventLoop::forget(curl_socket_t descriptor) noexcept {
  const auto slot = static_cast<std::size_t>(descriptor);
  if (slot >= interests_.size()) {
    return;
  }
  if (interests_[slot].watched != 0) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
  }
  interests_[slot] = {};
}

// An idle connection has input. Usually it was closed. But it may be an answer
// without a request, which would pass for the answer to the next request:
// libcurl before 8.0 reuses connections with unread input. So the input is
// dropped, and curl finds the connection ended.
void EventLoop::take_idle_event(Shard& shard, curl_socket_t descriptor,
                                std::uint32_t events) noexcept {
  Interest& interest = interests_[static_cast<std::size_t>(descriptor)];
  if (interest.watched == 0) {
    return;  // closed meanwhile: the number may be anybody's
  }
  std::array<char, 4096> dropped;
  // The event may be out of date: an earlier one of the same batch made curl
  // read all there was. And being writable says nothing.
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) == 0 ||
      (recv(descriptor, dropped.data(), 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
       errno == EAGAIN)) {
    watch(shard, nullptr, descriptor, EPOLLIN);
    interest.wanted = 0;
    return;
  }
  for (int i = 0; i < 16; ++i) {
    if (recv(descriptor, dropped.data(), dropped.size(), MSG_DONTWAIT) <= 0) {
      break;
    }
  }
  end_idle(descriptor);
}

void EventLoop::act(Shard& shard, CURL* easy, curl_socket_t descriptor,
                    int flags) {
  const std::int64_t before = steady_now_us();
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
  const std::int64_t took_us = slices_.slow_since(before);
  if (took_us != 0 && on_slow_) {
    on_slow_(easy, took_us);
  }
}

// By now the descriptor may be closed, or be another transfer's.
bool EventLoop::received_too_much(curl_socket_t descriptor,
                                  CURL* easy) noexcept {
  Interest& interest = interests_[static_cast<std::size_t>(descriptor)];
  if (easy == nullptr || interest.easy != easy ||
      ++interest.reads % kReadsUncounted != 0) {
    return false;
  }
  const std::uint64_t received = received_bytes(descriptor);
  if (interest.reads == kReadsUncounted) {
    interest.received_before = received;
  }
  return received - interest.received_before > limits_.received_bytes_max;
}

void EventLoop::fire_timers(std::int64_t now) {
  for (const auto& shard : shards_) {
    if (shard->due_us > now) {
      continue;
    }
    shard->due_us = kNever;
    act(*shard, nullptr, CURL_SOCKET_TIMEOUT, 0);
    if (shard->due_us != kNever) {
      continue;
    }
    // Not announced again does not mean that there is none.
    long timeout_ms = -1;
    curl_multi_timeout(shard->multi.get(), &timeout_ms);
    shard->due_us = due_us(now, timeout_ms);
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
      finish(*shard, message->easy_handle, message->data.result, done);
    }
  }
  touched_.clear();
  while (!flooded_.empty()) {
    const auto [shard, easy] = flooded_.back();
    finish(*shard, easy, CURLE_FILESIZE_EXCEEDED, done);
  }
}

// A message dies with the removal of its handle: hence no reference to it.
void EventLoop::finish(Shard& shard, CURL* easy, CURLcode code,
                       const Done& done) {
  std::erase(flooded_, std::pair(&shard, easy));
  remove(shard.index, easy);
  done(easy, code);
}

std::int64_t EventLoop::next_timer_us() const noexcept {
  std::int64_t next = kNever;
  for (const auto& shard : shards_) {
    next = std::min(next, shard->due_us);
  }
  return next;
}

std::size_t EventLoop::poll(std::int64_t wait_us, const Done& done) {
  fire_timers(steady_now_us());
  // What the timers finished may let the caller start more: no waiting then.
  if (!touched_.empty()) {
    reap(done);
    wait_us = 0;
  }
  const std::int64_t next = next_timer_us();
  if (next != kNever) {
    wait_us = std::clamp<std::int64_t>(next - steady_now_us(), 0, wait_us);
  }
  std::array<epoll_event, kEventsMax> events;
  // Rounded up: a wait cut to the millisecond below would spin until the time.
  const int wait_ms = static_cast<int>((wait_us + 999) / 1000);
  const int count = epoll_wait(epoll_, events.data(), kEventsMax, wait_ms);
  slices_.begin();
  for (int i = 0; i < count; ++i) {
    take_event(events[static_cast<std::size_t>(i)]);
  }
  reap(done);
  return count > 0 ? static_cast<std::size_t>(count) : 0;
}

void EventLoop::take_event(const epoll_event& event) {
  if (event.data.u64 == kWakeTag) {
    std::uint64_t ignored = 0;
    static_cast<void>(!read(wake_, &ignored, sizeof ignored));
    wake_pending_.store(false, std::memory_order_seq_cst);
    return;
  }
  const auto descriptor =
      static_cast<curl_socket_t>(event.data.u64 & 0xffffffffU);
  const auto index = static_cast<std::size_t>(event.data.u64 >> 32);
  if (index == kOtherShard) {
    on_other_(descriptor, (event.events & ~std::uint32_t{EPOLLOUT}) != 0,
              (event.events & EPOLLOUT) != 0);
    return;
  }
  Shard& shard = *shards_[index];
  if (interests_[static_cast<std::size_t>(descriptor)].wanted == 0) {
    take_idle_event(shard, descriptor, event.events);
    return;
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
  CURL* const easy = interests_[static_cast<std::size_t>(descriptor)].easy;
  act(shard, easy, descriptor, flags);
  const std::pair flooded(&shard, easy);
  if ((flags & CURL_CSELECT_IN) != 0 && received_too_much(descriptor, easy) &&
      std::ranges::find(flooded_, flooded) == flooded_.end()) {
    flooded_.push_back(flooded);
  }
}

}  // namespace webhooks
