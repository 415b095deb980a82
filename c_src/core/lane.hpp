// Purpose: the engine's queues as plain data: items (deliveries on their way),
// lanes (one per webhook) and hosts (one per destination).
// Ownership: a lane owns its items; std::list nodes never move, so iterators
// and pointers to them stay good while an item goes from list to list.
// Thread: loop only.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "core/curl_handles.hpp"
#include "core/slots.hpp"
#include "webhooks/delivery.hpp"
#include "webhooks/rate_limit.hpp"

namespace webhooks {

std::int64_t wall_clock_ms() noexcept;

struct Lane;
struct Host;
struct Item;
class Transfer;

// Who is to be looked at again when a timer fires.
using TimerTarget = std::variant<Item*, Lane*, Host*>;
using Timers = std::multimap<std::int64_t, TimerTarget>;

enum class Place : std::uint8_t { kReady, kDelayed, kResolving, kInFlight };

struct Item {
  Delivery delivery;
  Lane* lane = nullptr;
  Host* host = nullptr;  // whose slot it holds; the lane may move meanwhile
  Standing standing = Standing::kUnproven;  // as which it holds its slots
  std::uint32_t url_changes = 0;            // of the lane when it started
  Place place = Place::kReady;
  std::list<Item>::iterator self;
  Timers::iterator timer;  // in kDelayed; in kResolving until resolved
  const std::string* asked = nullptr;  // the name it waits for, likewise
  Transfer* transfer = nullptr;        // only in kInFlight
  // The attempt under way: DNS counts towards it.
  std::int64_t started_us = 0;
  std::int64_t started_ms = 0;
  std::int64_t resolved_us = 0;  // 0: there was nothing to resolve
};

struct Host {
  explicit Host(TokenBucket tokens) : bucket(tokens) {}
  std::string name;
  TokenBucket bucket;
  Slots slots;              // in use, or granted
  std::uint32_t lanes = 0;  // who refers to it
  LaneQueue waiting;        // for a slot or a token
  // The first of them, now in the run queue, with a slot and a token in hand.
  // One for each standing: who waits for its share of the engine must not hold
  // up the others here.
  ByStanding<Lane*> granted;
  bool timed = false;
  Timers::iterator timer;
};

struct Lane {
  Lane(Endpoint target, TokenBucket tokens)
      : endpoint(std::move(target)), bucket(tokens) {}
  Endpoint endpoint;
  CurlUrl parsed_url;  // of endpoint.url; transfers may outlive a change of it
  TokenBucket bucket;
  Host* host = nullptr;
  std::size_t multi = 0;
  std::list<Item> ready;   // to be started, in order
  std::list<Item> away;    // delayed, resolving, in flight
  std::uint32_t busy = 0;  // resolving or in flight
  std::uint32_t failures_in_a_row = 0;
  Standing standing = Standing::kUnproven;
  std::uint32_t url_changes = 0;
  std::uint64_t ticket = 0;          // when it asked for a slot; while it waits
  std::int64_t booked_until_us = 0;  // by what had no room in it
  bool queued = false;               // in the engine's run queue
  bool waits_for_host = false;
  bool timed = false;  // waits for a token
  Timers::iterator timer;
  bool deleted = false;
};

}  // namespace webhooks
