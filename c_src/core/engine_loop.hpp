// Purpose: the inside of the engine: lanes, hosts, limits, retries, attempts.
// Ownership: owns lanes, hosts, transfers, the event loop and the resolver.
// Thread: loop only, except wake() and what is atomic in EngineCounters.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/event_loop.hpp"
#include "core/lane.hpp"
#include "core/transfer.hpp"
#include "webhooks/engine.hpp"
#include "webhooks/resolver.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks {

// Written by the loop, read by anybody; `waiting` also by submit.
struct EngineCounters {
  std::atomic<std::uint64_t> in_flight{0};
  std::atomic<std::uint64_t> waiting{0};
  std::atomic<std::uint64_t> lanes{0};
  std::atomic<std::uint64_t> finished_unread{0};
  std::atomic<std::uint64_t> submitted{0};
  std::atomic<std::uint64_t> attempts{0};
  std::atomic<std::uint64_t> delivered{0};
  std::atomic<std::uint64_t> retried{0};
  std::atomic<std::uint64_t> parked{0};
  std::atomic<std::uint64_t> failed{0};
  std::atomic<std::uint64_t> cancelled{0};
  std::atomic<std::uint64_t> connections_opened{0};
  std::atomic<std::uint64_t> resolver_threads{0};
  std::atomic<std::uint64_t> resolver_stuck{0};
  std::atomic<std::uint64_t> loop_turns{0};
};

class EngineLoop {
 public:
  static Result<std::unique_ptr<EngineLoop>> create(
      const EngineOptions& options, EngineCounters& counters);
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  void put(Endpoint endpoint);
  void remove(const std::string& webhook_id);
  void take(Delivery delivery);

  // One round: answers of the resolver, timers, starts, sockets. Waits for at
  // most `wait_us`. Returns how many socket events there were.
  std::size_t turn(std::int64_t wait_us);
  void wake() noexcept { events_->wake(); }

  // From now on nothing is started; what is in flight goes on.
  void close_admission() noexcept { open_ = false; }
  // Ids of all deliveries that are still here.
  std::vector<std::string> unfinished() const;
  bool has_in_flight() const noexcept { return slots_.total() > 0; }

  std::vector<Attempt>& finished() noexcept { return finished_; }
  std::size_t in_flight_max() const noexcept { return in_flight_max_; }

  // For the transfers' callbacks.
  bool judge(const IpAddress& address) const {  // true: refused
    return options_.policy.addresses.judge(address).has_value();
  }
  void socket_opened(curl_socket_t descriptor) noexcept;
  static int on_close_socket(void* loop, curl_socket_t descriptor) noexcept;
  static CURLcode on_tls_context(CURL* easy, void* context,
                                 void* loop) noexcept;

 private:
  EngineLoop(EngineOptions options, EngineCounters& counters, TrustStore trust);
  static std::size_t descriptors_max(std::size_t asked);

  // engine_loop.cpp: queues
  Host& host_of(const std::string& name);
  void drop_host_if_idle(Host& host);
  void attach(Lane& lane);
  void detach(Lane& lane);
  void fire_timers();
  void set_lane_timer(Lane& lane, std::int64_t at_us);
  void set_host_timer(Host& host, std::int64_t at_us);
  void make_ready(Item& item);
  void cancel_waiting(Lane& lane);
  void bury(Lane& lane);
  std::int64_t next_wait_us(std::int64_t wait_us) const;
  TokenBucket lane_bucket(const Endpoint& endpoint) const;

  // engine_slots.cpp: whose turn it is
  std::uint32_t rate_of(const Endpoint& endpoint) const;
  bool has_room(const Lane& lane) const;
  void put_off(Lane& lane, const Delivery& delivery);
  std::uint32_t limit_of(const Lane& lane) const;
  void enqueue(Lane& lane);
  void dequeue(Lane& lane);
  void set_standing(Lane& lane, Standing standing);
  bool take_host_slot(Lane& lane);
  void wait_for_host(Lane& lane);
  void release_host(Host& host);
  void give_back_grant(Lane& lane);
  bool start_next(Lane& lane);
  Item* next_resolved();
  void pump();

  // engine_attempt.cpp: one attempt
  void start(Item& item);
  void resolve(Item& item);
  void wait_for_name(Item& item);
  void give_up_name(Item& item);
  std::uint32_t timeout_of(const Endpoint& endpoint) const;
  void settle_names();
  void launch(Item& item, const std::vector<IpAddress>* addresses);
  std::optional<std::string> sign(Lane& lane, const Delivery& delivery,
                                  std::int64_t now_ms);
  void done(CURL* easy, CURLcode code);
  void fail_before_launch(Item& item, ErrorClass error, std::string detail);
  void settle(Item& item, Attempt attempt,
              std::optional<std::int64_t> retry_after_ms);
  void decide(Item& item, Attempt& attempt,
              std::optional<std::int64_t> retry_after_ms);
  void free_slot(Item& item);
  void erase(Item& item);
  Attempt without_attempt(const Delivery& delivery, DeliveryState state) const;
  void report_without_attempt(const Delivery& delivery, ErrorClass error);
  void refuse_body(const Delivery& delivery);
  void replace_waiting(Item& item, const Delivery& delivery);
  void rebuild_broken();
  std::unique_ptr<Transfer> new_transfer();
  std::int64_t now_ms() const {
    return options_.now_ms ? options_.now_ms() : wall_clock_ms();
  }

  EngineOptions options_;
  EngineCounters& counters_;
  RetrySchedule schedule_;
  TransferSettings transfer_settings_;
  std::size_t in_flight_max_ = 0;
  std::size_t host_spread_ = 1;
  TrustStore trust_;
  std::unique_ptr<EventLoop> events_;
  std::unique_ptr<Resolver> resolver_;
  std::minstd_rand random_;
  bool open_ = true;

  std::int64_t now_us_ = 0;
  Slots slots_;  // in flight
  std::uint64_t tickets_ = 0;
  Timers timers_;
  std::unordered_map<std::string, std::unique_ptr<Lane>> lanes_;
  std::unordered_map<Lane*, std::unique_ptr<Lane>> dying_;
  std::unordered_map<std::string, std::unique_ptr<Host>> hosts_;
  std::unordered_map<std::string, Item*> items_;  // by delivery id
  std::unordered_map<std::string, std::vector<Item*>> resolving_;
  // Addresses known, waiting for a place.
  ByStanding<std::deque<Item*>> resolved_;
  LaneQueue run_queue_;
  std::vector<std::unique_ptr<Transfer>> idle_transfers_;
  std::unordered_map<Transfer*, std::unique_ptr<Transfer>> busy_transfers_;
  std::vector<Attempt> finished_;
};

}  // namespace webhooks
