// Purpose: decides which delivery starts next. A delivery needs a place in its
// lane, at its destination and in the engine, and a token of lane and
// destination.
// Ownership: owns lanes, their items, and destinations.
// Thread: loop only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/lane.hpp"
#include "core/places.hpp"
#include "core/report.hpp"
#include "core/timers.hpp"
#include "webhooks/delivery.hpp"
#include "webhooks/engine_options.hpp"

namespace webhooks {

class Scheduler {
 public:
  // `in_flight`: the engine's places, taken by whoever opens connections.
  // `waiting`: counts deliveries that are not started.
  Scheduler(const EngineOptions& options, const Places& in_flight,
            Timers& timers, Waiting& waiting)
      : options_(options),
        in_flight_(in_flight),
        timers_(timers),
        waiting_(waiting) {}

  void put(Endpoint endpoint);
  // take_removed() then returns the waiting deliveries. A started delivery ends
  // with its attempt.
  void remove(const std::string& webhook_id);
  // Waiting deliveries of deleted webhooks, at most this many. They still count
  // as waiting.
  std::vector<Delivery> take_removed(std::size_t max);
  bool has_removed() const noexcept { return !removed_.empty(); }
  // Likewise, one that is not started.
  Delivery take_removed(Item& item);
  std::size_t lanes() const noexcept { return by_webhook_.size(); }

  Lane* lane(const std::string& webhook_id) const;
  Item* item(const std::string& delivery_id) const;
  std::vector<std::string> delivery_ids() const;

  // A lane holds at most what it can start before park_after_ms, and at most
  // what all other lanes leave free. Otherwise a few webhooks with more events
  // than their rate allows would fill the engine, and the deliveries of all
  // others would wait in the store.
  bool has_room(const Lane& lane) const;
  // The wait of a delivery that finds no room: until the lane's rate lets it
  // go, so that the store brings back no more than can be sent.
  std::int64_t book_ms(Lane& lane) const;
  // `delivery` is counted as waiting.
  void add(Lane& lane, Delivery delivery, std::int64_t wait_ms);
  // A manual delivery with the same id arrived: the waiting one goes next.
  void hurry(Item& item, std::uint32_t schedule_from);

  // The delivery to start now, which has its places at lane and destination
  // but not in the engine. Null: none can start.
  Item* next();
  // Takes the result of its attempt and frees its places. Followed by retry(),
  // requeue() or drop().
  struct Result {
    ErrorClass error = ErrorClass::kNone;
    bool limited = false;  // the receiver wants fewer requests
    bool cut = false;      // its answer did not end in time
  };
  void finish(Item& item, const Result& result);
  void retry(Item& item, std::int64_t wait_ms);
  void requeue(Item& item);  // as the lane's next
  void drop(Item& item);

  // Their timer is due.
  void resume(Item& item);
  void resume(Lane& lane);
  void resume(Destination& destination) { serve(destination); }

 private:
  Destination& destination_of(const std::string& name);
  double rate_of(const Endpoint& endpoint) const;
  std::uint32_t limit_of(const Lane& lane) const;

  void attach(Lane& lane);
  void detach(Lane& lane);
  void move(Item& item, Item::Stage stage);
  void count_active(Lane& lane);
  void wait_again(Item& item);
  void erase(Item& item);
  void delay(Item& item, std::int64_t wait_ms);

  void enqueue(Lane& lane);
  void queue_for_engine(Lane& lane, Lane::Waits waits);
  void queue_for_destination(Lane& lane);
  void leave_queue(Lane& lane);
  void set_standing(Lane& lane, Standing standing);
  bool may_start(const Lane& lane) const;
  bool take_place(Lane& lane);
  void give_back_place(Destination& destination, Standing standing);
  void serve(Destination& destination);
  Item* start_next(Lane& lane);

  const EngineOptions& options_;
  const Places& in_flight_;
  Timers& timers_;
  Waiting& waiting_;
  std::uint64_t tickets_ = 0;
  std::size_t active_ = 0;  // lanes that hold or want a place
  std::unordered_map<std::string, Destination> destinations_;
  std::list<Lane> lanes_;     // deleted ones too, until nothing is left in them
  std::list<Lane*> removed_;  // deleted, with deliveries that may wait
  std::unordered_map<std::string, Lane*> by_webhook_;
  std::unordered_map<std::string_view, Item*> items_;  // by delivery id
  LaneQueue run_queue_;
};

}  // namespace webhooks
