// Purpose: what the scheduler and the attempts keep of a delivery (Item), of a
// webhook (Lane) and of a remote machine (Destination), as plain data.
// Ownership: a lane owns its items. Items, lanes and destinations never move,
// so pointers to them stay valid while an item goes from list to list.
// Thread: loop only.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <utility>

#include "core/curl_handles.hpp"
#include "core/lane_rate.hpp"
#include "core/places.hpp"
#include "core/timers.hpp"
#include "webhooks/delivery.hpp"
#include "webhooks/rate_limit.hpp"

namespace webhooks {

struct Item {
  enum class Stage : std::uint8_t {
    kReady,    // to be started, in Lane::ready
    kDelayed,  // waits for its timer, in Lane::away
    kStarted,  // its attempt is under way, in Lane::away
  };
  Delivery delivery;
  Lane* lane = nullptr;
  std::list<Item>::iterator self;
  Stage stage = Stage::kReady;
  Timer timer;  // kDelayed; kStarted while its name is looked up

  // Of a started item: the destination and standing under which it holds its
  // places. Those of the lane may have changed since.
  Destination* destination = nullptr;
  Standing standing = Standing::kUnproven;
  std::uint32_t url_changes = 0;
  // Of its attempt, which includes the name's lookup.
  std::int64_t started_us = 0;
  std::int64_t started_ms = 0;
  std::int64_t resolved_us = 0;          // 0: there was nothing to resolve
  bool fresh_connection = false;         // not over one that is kept
  const std::string* awaited = nullptr;  // the name being looked up
};

struct Destination {
  Destination(std::size_t places_max, std::uint32_t rate_per_s,
              std::int64_t now_us)
      : places(places_max), bucket(rate_per_s, rate_per_s, now_us) {}
  const std::string* name = nullptr;
  Places places;  // taken, or granted
  TokenBucket bucket;
  std::size_t lanes = 0;   // that refer to it
  std::size_t active = 0;  // of these, that hold or want a place
  LaneQueue waiting;       // for a place or a token
  // Lanes that have left `waiting` with a place and a token in hand, and now
  // wait for the engine. One for each standing: a lane that waits for its
  // share of the engine must not hold up the others.
  ByStanding<Lane*> granted;
  Timer timer;
};

struct Lane {
  enum class Waits : std::uint8_t {
    kNot,
    kForEngine,       // in the run queue
    kGranted,         // likewise, with its destination's place in hand
    kForDestination,  // in Destination::waiting
    kForToken,        // for its timer
  };
  Lane(Endpoint target, double rate_per_s, std::int64_t now_us)
      : endpoint(std::move(target)), rate(rate_per_s, now_us) {}
  Endpoint endpoint;
  LaneRate rate;
  std::list<Lane>::iterator self;
  Destination* destination = nullptr;  // null once it is deleted
  std::list<Item> ready;
  std::list<Item> away;
  std::uint32_t started = 0;        // items in kStarted
  std::uint64_t waiting_bytes = 0;  // of the others
  bool active = false;              // holds or wants a place
  bool removed = false;             // deleted, and nothing waits any more
  std::uint32_t failures_in_a_row = 0;
  std::uint32_t url_changes = 0;
  Standing standing = Standing::kUnproven;
  Waits waits = Waits::kNot;
  Timer timer;
  std::uint64_t ticket = 0;          // when it began to wait
  std::int64_t booked_until_us = 0;  // by deliveries that were put off
  // How to reach endpoint.url, worked out at the first attempt: the URL as curl
  // parsed it, and the multi handle.
  CurlUrl parsed_url;
  std::size_t multi = 0;

  bool deleted() const noexcept { return destination == nullptr; }
};

inline void LaneQueue::add(Lane& lane) {
  lines_[lane.standing].emplace(lane.ticket, &lane);
}
inline void LaneQueue::remove(const Lane& lane) {
  lines_[lane.standing].erase(lane.ticket);
}

}  // namespace webhooks
