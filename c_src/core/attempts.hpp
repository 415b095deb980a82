// Purpose: makes attempts: resolves the name, launches the POST, settles the
// result.
// Ownership: owns the resolver, the event loop with its connections, and the
// transfers.
// Thread: loop only, except wake().
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/event_loop.hpp"
#include "core/places.hpp"
#include "core/report.hpp"
#include "core/resolver.hpp"
#include "core/scheduler.hpp"
#include "core/timers.hpp"
#include "core/transfer.hpp"
#include "webhooks/engine_options.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks {

class Attempts {
 public:
  // What an engine needs from the system. Errors: `ca_file`, `dns_servers`,
  // `system_limit`.
  struct Parts {
    TrustStore trust;
    std::unique_ptr<EventLoop> events;
    std::unique_ptr<Resolver> resolver;
    static Result<Parts> create(const EngineOptions& options,
                                std::size_t multis, long idle_connections);
  };

  // `spread`: over how many multis the connections to one destination go.
  Attempts(const EngineOptions& options, Parts parts, std::size_t spread,
           Scheduler& scheduler, Places& in_flight, Timers& timers,
           Report& report);
  ~Attempts();
  Attempts(const Attempts&) = delete;
  Attempts& operator=(const Attempts&) = delete;

  // The places at lane and destination are taken. The engine's place is taken
  // once the name is known: a name that hangs must not hold a place that is
  // meant for connections.
  void start(Item& item);
  void start_resolved();
  // Before anything is started: takes in the resolver's answers.
  void begin_turn();
  // The attempt's time is over while its name is looked up.
  void give_up_name(Item& item);

  // Waits for sockets and lets curl work. Returns how many events there were.
  std::size_t poll(std::int64_t wait_us);
  void wake() noexcept { events_->wake(); }
  std::int64_t next_deadline_us() const {
    return resolver_->next_deadline_us(timers_.now_us());
  }

 private:
  struct Flight : Transfer {
    using Transfer::Transfer;
    Item* item = nullptr;
    std::size_t multi = 0;
    std::list<Flight>::iterator self;
  };

  template <class Work>
  void measure(Item& item, Work work);
  void resolve(Item& item);
  void wait_for_name(Item& item);
  Item* next_resolved();
  void launch(Item& item, const std::vector<IpAddress>* addresses);
  bool send(Item& item, const std::vector<IpAddress>* addresses,
            const std::string& signature, std::int64_t signed_ms);
  std::uint32_t timeout_ms(const Endpoint& endpoint) const;
  std::uint32_t connect_timeout_ms(const Endpoint& endpoint) const;
  void route(Lane& lane) const;
  Flight* idle_flight();
  static const std::string& webhook_of(CURL* easy);
  void done(CURL* easy, CURLcode code);
  void fail_before_launch(Item& item, ErrorClass error, std::string detail);
  // What settling needs to know of an attempt besides its report.
  struct Ending {
    std::optional<std::int64_t> retry_after_ms;
    bool cut = false;
  };
  void settle(Item& item, Attempt attempt, const Ending& ending);
  struct Next {
    DeliveryState state = DeliveryState::kFailed;
    std::int64_t wait_ms = 0;
    bool counts = true;  // as a step of the schedule
  };
  // `hold_ms`: how long the receiver wants no requests; 0: it did not ask.
  Next next_of(Item& item, const Attempt& attempt, std::int64_t hold_ms);
  void rebuild_broken();
  void cut_bodies();

  const EngineOptions& options_;
  const std::size_t spread_;
  TrustStore trust_;
  Scheduler& scheduler_;
  Places& in_flight_;
  Timers& timers_;
  Report& report_;
  RetrySchedule schedule_;
  std::minstd_rand random_;
  std::unique_ptr<EventLoop> events_;
  std::unique_ptr<Resolver> resolver_;
  std::unordered_map<std::string, std::vector<Item*>> resolving_;
  // Their names are known, and they wait for a place in the engine.
  ByStanding<std::deque<Item*>> resolved_;
  TransferSettings settings_;
  std::list<Flight> idle_;
  std::list<Flight> busy_;
  std::int64_t looked_at_bodies_us_ = 0;
};

}  // namespace webhooks
