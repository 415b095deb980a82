// Purpose: name lookups off the loop. getaddrinfo can hang for half a minute
// and cannot be cancelled; here a lookup that hangs costs its own name a
// failure at the deadline and one thread until it returns, never the others.
// How the threads are shared out:
//  - lookups younger than kSlowAfter count against `active_max`; older ones do
//    not, so a wave of hanging names passes instead of standing in the way;
//  - a name that hung before may only use a quarter of all threads, one never
//    resolved before three quarters: names that worked always find a thread;
//  - one lookup per name at a time, whoever asks.
// Answers are kept for `cache_ms` and served while a newer one is fetched for
// ten times as long, so that steady traffic does not wait for DNS at all.
// Ownership: the threads share a state block that outlives the Resolver, so
// that nobody has to wait for a hanging getaddrinfo when the engine closes.
// Thread: every method by the loop only; `wake` is called by lookup threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/address_policy.hpp"

namespace webhooks {

// An empty answer means that the name has no address; `failure` then says why.
struct Resolution {
  std::vector<IpAddress> addresses;
  std::string failure;
};
// Blocks until the name is resolved; called on a thread of the resolver.
using ResolveFunction = std::function<Resolution(const std::string& host)>;
// The system's resolver (nsswitch, hosts file, DNS). At most 64 addresses.
Resolution resolve_with_getaddrinfo(const std::string& host);

struct ResolverOptions {
  ResolveFunction resolve;  // empty: resolve_with_getaddrinfo
  std::uint32_t threads_max = 512;
  std::uint32_t active_max = 64;
  std::uint32_t deadline_ms = 5'000;
  std::uint32_t cache_ms = 30'000;
  std::function<void()> wake;
};

class Resolver {
 public:
  enum class State : std::uint8_t { kKnown, kFailed, kTimedOut, kPending };
  struct Lookup {
    State state = State::kPending;
    const Resolution* resolution =
        nullptr;  // kKnown, kFailed; until the next call
  };

  explicit Resolver(ResolverOptions options);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // Asks for a name. kPending: its name will be among those `settle` returns.
  Lookup lookup(const std::string& host, std::int64_t now_us);

  // Takes in answers and expires deadlines; returns the names for which
  // somebody waits and `lookup` has an answer now.
  std::vector<std::string> settle(std::int64_t now_us);

  // When `settle` has something to do without a wake; INT64_MAX: never.
  std::int64_t next_deadline_us() const;

  std::size_t threads() const;
  std::size_t stuck() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace webhooks
