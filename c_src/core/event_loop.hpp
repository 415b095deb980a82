// Purpose: one epoll for many curl multi handles and for the loop's other
// descriptors. libcurl walks its whole connection cache whenever a transfer
// finishes, so one multi for all endpoints would have quadratic cost. curl's
// timers stay in memory: a timerfd for each multi costs more than a third of
// the CPU time of a small request.
// Ownership: owns the epoll and event descriptors and the multis. Easy handles
// belong to the caller, who removes them before this dies.
// Thread: loop only, except wake().
#pragma once

#include <curl/curl.h>
#include <sys/epoll.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/curl_handles.hpp"
#include "core/slices.hpp"
#include "webhooks/address_policy.hpp"
#include "webhooks/result.hpp"

namespace webhooks {

class EventLoop {
 public:
  // Called for every finished easy handle, which is already removed.
  using Done = std::function<void(CURL* easy, CURLcode code)>;

  // Work for an easy handle (null: several) took so much CPU time.
  using OnSlow = std::function<void(CURL* easy, std::int64_t took_us)>;

  struct Limits {
    std::size_t multis = 1;
    long idle_connections_max = 1;  // per multi, besides those at work
    // How many bytes the socket may receive in one transfer, including TLS and
    // framing. curl does not count all of them, such as chunk extensions.
    std::uint64_t received_bytes_max = std::uint64_t{1} << 30;
  };
  // Errors: `system_limit`.
  static Result<std::unique_ptr<EventLoop>> create(const Limits& limits);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  std::size_t multis() const noexcept { return shards_.size(); }
  // False: the multi refused; the easy is not added.
  bool add(std::size_t multi, CURL* easy);
  void remove(std::size_t multi, CURL* easy);

  // Runs curl's timers that are due, waits for at most `wait_us` for sockets, a
  // timer or wake(), and lets curl work. `done` must not add or remove handles.
  // A transfer that received too much is done with CURLE_FILESIZE_EXCEEDED.
  // Returns how many events there were.
  std::size_t poll(std::int64_t wait_us, const Done& done);

  // The multis that curl declared unusable; each is to be emptied with remove()
  // and then rebuilt.
  std::vector<std::size_t> broken() const;
  bool rebuild(std::size_t multi) { return open_multi(*shards_[multi]); }
  // Closes every connection, while the descriptors' callbacks find this alive.
  void close_multis() noexcept { shards_.clear(); }

  // Ends the wait of a running or the next poll(). Any thread.
  void wake() noexcept;

  // Watches a socket that is not curl's; neither: stops watching it. poll()
  // calls its owner.
  using OnOther = std::function<void(int descriptor, bool in, bool out)>;
  void set_on_other(OnOther on_other) { on_other_ = std::move(on_other); }
  void set_on_slow(OnSlow on_slow) { on_slow_ = std::move(on_slow); }
  // Of the thread that polls, which also does other work.
  Slices& slices() noexcept { return slices_; }
  void watch_other(int descriptor, bool in, bool out) noexcept;

  // The other end of a connection: a hash of the name, and the address.
  struct Peer {
    std::size_t host = 0;
    IpAddress address;
  };
  // Connections to this name but to none of these addresses end as soon as
  // they are idle.
  void retire(std::size_t host, const std::vector<IpAddress>& addresses);

  // For CURLOPT_OPENSOCKETFUNCTION and CURLOPT_CLOSESOCKETFUNCTION: what we
  // remember of a descriptor must die with it, for the number comes again.
  void opened(curl_socket_t descriptor, const Peer& peer) noexcept;
  static int on_close_socket(void* loop, curl_socket_t descriptor) noexcept;
  std::uint64_t opened_count() const noexcept { return opened_; }

 private:
  struct Shard {
    EventLoop* loop = nullptr;
    CurlMulti multi;
    std::size_t index = 0;
    std::int64_t due_us = 0;
    long handles = 0;
    bool touched = false;
    bool broken = false;
  };

  struct Interest {
    std::uint32_t wanted = 0;   // by curl
    std::uint32_t watched = 0;  // what epoll was told; 0: nothing
    bool retired = false;
    Peer peer;
    CURL* easy = nullptr;  // that uses it
    std::uint32_t reads = 0;
    std::uint64_t received_before = 0;
  };

  EventLoop() = default;
  static int on_socket(CURL* easy, curl_socket_t descriptor, int what,
                       void* shard, void* unused) noexcept;
  static int on_timer(CURLM* multi, long timeout_ms, void* shard) noexcept;

  bool open(const Limits& limits);
  bool open_multi(Shard& shard);
  bool fit_connections(const Shard& shard) const noexcept;
  void watch(Shard& shard, CURL* easy, curl_socket_t descriptor,
             std::uint32_t events) noexcept;
  Interest* interest_in(curl_socket_t descriptor) noexcept;
  bool tell_epoll(int descriptor, std::uint32_t events, std::uint64_t tag,
                  bool known) noexcept;
  void end_idle(curl_socket_t descriptor) noexcept;
  void forget(curl_socket_t descriptor) noexcept;
  void take_event(const epoll_event& event);
  void take_idle_event(Shard& shard, curl_socket_t descriptor,
                       std::uint32_t events) noexcept;
  void act(Shard& shard, CURL* easy, curl_socket_t descriptor, int flags);
  bool received_too_much(curl_socket_t descriptor, CURL* easy) noexcept;
  void finish(Shard& shard, CURL* easy, CURLcode code, const Done& done);
  void fire_timers(std::int64_t now);
  void reap(const Done& done);
  std::int64_t next_timer_us() const noexcept;

  Limits limits_;
  int epoll_ = -1;
  int wake_ = -1;
  std::atomic<bool> wake_pending_{false};
  std::uint64_t opened_ = 0;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<Shard*> touched_;
  std::vector<std::pair<Shard*, CURL*>> flooded_;
  std::vector<Interest> interests_;  // by descriptor
  OnOther on_other_;
  OnSlow on_slow_;
  Slices slices_;
};

}  // namespace webhooks
