// Purpose: the loop, the routes and the records of the test server.
// Ownership: see the header. Connections live in the loop's thread only.
// Thread: routes and records are under one mutex; the rest is the loop's.
#include "test_server.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "sockets.hpp"
#include "test_connection.hpp"

namespace webhooks::test {
namespace {

using Clock = Connection::Clock;
constexpr std::uint64_t kListenTag = 0;
constexpr std::uint64_t kWakeTag = 1;
constexpr std::uint64_t kFirstConnectionTag = 2;

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string Request::path() const { return target.substr(0, target.find('?')); }

std::string Request::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (same_name(key, name)) {
      return value;
    }
  }
  return {};
}

std::size_t Request::header_count(std::string_view name) const {
  return static_cast<std::size_t>(std::count_if(
      headers.begin(), headers.end(),
      [name](const auto& header) { return same_name(header.first, name); }));
}

struct TestServer::Impl final : ConnectionHost {
  struct Route {
    std::vector<Reply> replies;
    Handler handler;
    std::size_t next = 0;
  };
  struct Gauge {
    std::size_t now = 0;
    std::size_t peak = 0;
    void enter() { peak = std::max(peak, ++now); }
    void leave() { --now; }
  };
  struct Timer {
    Clock::time_point at;
    std::uint64_t tag;
    bool operator<(const Timer& other) const { return at > other.at; }
  };
  struct Slot {
    std::unique_ptr<Connection> connection;
    bool registered_write = false;
    Clock::time_point timer_at{};
  };

  explicit Impl(ServerOptions wanted);
  ~Impl() override;

  bool is_early(const std::string& path) override;
  Reply begin(const Request& request) override;
  void end(const std::string& path) override;
  void sent(std::size_t bytes) override { bytes_sent += bytes; }
  void tls_failed() override { ++tls_failures; }

  void run();
  int wait_ms() const;
  void accept_all();
  void drive(std::uint64_t tag);
  void fire_timers();

  const ServerOptions options;
  Listener listener;
  int epoll = -1;
  int wake = -1;
  std::atomic<bool> stopping{false};
  std::atomic<std::size_t> accepted{0};
  std::atomic<std::size_t> open{0};
  std::atomic<std::size_t> tls_failures{0};
  std::atomic<std::uint64_t> bytes_sent{0};

  mutable std::mutex mutex;
  std::unordered_map<std::string, Route> routes;
  Handler fallback;
  std::vector<Request> requests;
  Gauge gauge;
  std::unordered_map<std::string, Gauge> gauges;

  // The loop's own.
  std::unordered_map<std::uint64_t, Slot> slots;
  std::priority_queue<Timer> timers;
  std::thread thread;
};

TestServer::Impl::Impl(ServerOptions wanted)
    : options(std::move(wanted)),
      listener(options.ip, options.accept == ServerOptions::Accept::kNever
                               ? Listener::Backlog::kFull
                               : Listener::Backlog::kLong) {
  // OpenSSL writes with write(2): a peer that went away must not end the test.
  std::signal(SIGPIPE, SIG_IGN);
  epoll = ::epoll_create1(EPOLL_CLOEXEC);
  wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeTag;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event);
  if (options.accept != ServerOptions::Accept::kNever) {
    event.data.u64 = kListenTag;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, listener.fd(), &event);
  }
  thread = std::thread([this] { run(); });
}

TestServer::Impl::~Impl() {
  stopping = true;
  const std::uint64_t one = 1;
  static_cast<void>(!::write(wake, &one, sizeof one));
  thread.join();
  slots.clear();
  ::close(wake);
  ::close(epoll);
}

bool TestServer::Impl::is_early(const std::string& path) {
  const std::lock_guard lock(mutex);
  const auto found = routes.find(path);
  if (found == routes.end() || found->second.replies.empty()) {
    return false;
  }
  const Route& route = found->second;
  return route.replies[std::min(route.next, route.replies.size() - 1)]
      .is_early();
}

Reply TestServer::Impl::begin(const Request& request) {
  Handler handler;
  {
    const std::lock_guard lock(mutex);
    const std::string path = request.path();
    requests.push_back(request);
    gauge.enter();
    gauges[path].enter();
    const auto found = routes.find(path);
    if (found == routes.end()) {
      handler = fallback;
    } else if (!found->second.replies.empty()) {
      Route& route = found->second;
      const std::size_t at = std::min(route.next, route.replies.size() - 1);
      ++route.next;
      return route.replies[at];
    } else {
      handler = found->second.handler;
    }
  }
  return handler ? handler(request) : answer(200);
}

void TestServer::Impl::end(const std::string& path) {
  const std::lock_guard lock(mutex);
  gauge.leave();
  gauges[path].leave();
}

void TestServer::Impl::accept_all() {
  for (;;) {
    const int fd = listener.accept_local();
    if (fd < 0) {
      return;
    }
    if (options.accept == ServerOptions::Accept::kReset) {
      ++accepted;
      reset_close(fd);
      continue;
    }
    const std::string& greeting = options.greeting;
    static_cast<void>(
        !::send(fd, greeting.data(), greeting.size(), MSG_NOSIGNAL));
    const std::uint64_t number = ++accepted;
    ++open;
    SSL* const ssl =
        options.tls == nullptr ? nullptr : options.tls->new_connection(fd);
    Slot& slot = slots[number + kFirstConnectionTag];
    slot.connection = std::make_unique<Connection>(
        *this, fd, number, ssl, options.accept == ServerOptions::Accept::kMute);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = number + kFirstConnectionTag;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
}

void TestServer::Impl::drive(std::uint64_t tag) {
  const auto found = slots.find(tag);
  if (found == slots.end()) {
    return;
  }
  Slot& slot = found->second;
  Connection& connection = *slot.connection;
  connection.drive(Clock::now());
  if (connection.gone()) {
    slots.erase(found);
    --open;
    return;
  }
  if (slot.registered_write != connection.wants_write()) {
    slot.registered_write = connection.wants_write();
    epoll_event event{};
    event.events = EPOLLIN;
    if (slot.registered_write) {
      event.events |= EPOLLOUT;
    }
    event.data.u64 = tag;
    ::epoll_ctl(epoll, EPOLL_CTL_MOD, connection.fd(), &event);
  }
  const auto wake_at = connection.wake_at();
  if (wake_at && *wake_at != slot.timer_at) {
    slot.timer_at = *wake_at;
    timers.push({*wake_at, tag});
  }
}

void TestServer::Impl::fire_timers() {
  const Clock::time_point now = Clock::now();
  while (!timers.empty() && timers.top().at <= now) {
    const std::uint64_t tag = timers.top().tag;
    timers.pop();
    drive(tag);
  }
}

int TestServer::Impl::wait_ms() const {
  if (timers.empty()) {
    return -1;
  }
  const auto left = timers.top().at - Clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 60'000));
}

void TestServer::Impl::run() {
  std::array<epoll_event, 256> events{};
  while (!stopping) {
    const int count = ::epoll_wait(epoll, events.data(),
                                   static_cast<int>(events.size()), wait_ms());
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tag = events.at(static_cast<std::size_t>(i)).data.u64;
      if (tag == kListenTag) {
        accept_all();
      } else if (tag >= kFirstConnectionTag) {
        drive(tag);
      }
    }
    fire_timers();
  }
}

TestServer::TestServer(ServerOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
TestServer::~TestServer() = default;

std::uint16_t TestServer::port() const noexcept {
  return impl_->listener.port();
}

std::string TestServer::url(std::string_view path) const {
  const std::string& ip = impl_->options.ip;
  return url(ip == "0.0.0.0"                     ? "127.0.0.1"
             : ip.find(':') == std::string::npos ? ip
                                                 : "[" + ip + "]",
             path);
}

std::string TestServer::url(std::string_view host,
                            std::string_view path) const {
  std::string out = impl_->options.tls == nullptr ? "http://" : "https://";
  out.append(host).append(":").append(std::to_string(port())).append(path);
  return out;
}

void TestServer::on(std::string path, Reply reply) {
  on(std::move(path), std::vector<Reply>{std::move(reply)});
}
void TestServer::on(std::string path, std::vector<Reply> replies) {
  const std::lock_guard lock(impl_->mutex);
  impl_->routes[std::move(path)] = {std::move(replies), {}, 0};
}
void TestServer::on(std::string path, Handler handler) {
  const std::lock_guard lock(impl_->mutex);
  impl_->routes[std::move(path)] = {{}, std::move(handler), 0};
}
void TestServer::otherwise(Handler handler) {
  const std::lock_guard lock(impl_->mutex);
  impl_->fallback = std::move(handler);
}

std::vector<Request> TestServer::requests() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->requests;
}
std::vector<Request> TestServer::requests(std::string_view path) const {
  std::vector<Request> out;
  const std::lock_guard lock(impl_->mutex);
  std::copy_if(
      impl_->requests.begin(), impl_->requests.end(), std::back_inserter(out),
      [path](const Request& request) { return request.path() == path; });
  return out;
}
std::size_t TestServer::count() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->requests.size();
}
std::size_t TestServer::count(std::string_view path) const {
  return requests(path).size();
}
std::size_t TestServer::connections() const { return impl_->accepted; }
std::size_t TestServer::connections_open() const { return impl_->open; }
std::size_t TestServer::tls_failures() const { return impl_->tls_failures; }
std::uint64_t TestServer::bytes_sent() const { return impl_->bytes_sent; }

std::size_t TestServer::in_flight_peak() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->gauge.peak;
}
std::size_t TestServer::in_flight_peak(std::string_view path) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->gauges.find(std::string(path));
  return found == impl_->gauges.end() ? 0 : found->second.peak;
}

}  // namespace webhooks::test
