// Purpose: looks names up in the loop, without threads, and caches the answers.
//  - The hosts file comes first, then DNS, which is asked for A and AAAA at the
//    same time. When one of the two has answered, the other one gets a moment;
//    a slow or failing one does not keep a name from being used.
//  - An answer is used for its TTL, within bounds. After a failed connection it
//    is not used any more. A stale answer serves only while DNS itself fails.
//  - There is one lookup per name at a time; later questions join it.
// Ownership: owns the channel and the answers. The event loop that watches the
// channel's sockets outlives it.
// Thread: loop only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/dns_channel.hpp"
#include "webhooks/address_policy.hpp"
#include "webhooks/result.hpp"

namespace webhooks {

// An empty answer means that the name has no address; `failure` then says why.
struct Resolution {
  std::vector<IpAddress> addresses;
  std::string failure;
  bool timed_out = false;  // no name server answered
};

struct ResolverOptions {
  DnsChannel::Options channel;
  std::size_t lookups_max = 4'096;  // at a time; more wait in line
  // A name has lost an address: connections to it must not be used again.
  std::function<void(const std::string& host,
                     const std::vector<IpAddress>& addresses)>
      moved;
};

class Resolver {
 public:
  enum class State : std::uint8_t { kKnown, kFailed, kPending };
  struct Lookup {
    State state = State::kPending;
    // Unless it is kPending; until the next call.
    const Resolution* resolution = nullptr;
  };

  // Errors: those of DnsChannel.
  static Result<std::unique_ptr<Resolver>> create(ResolverOptions options);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // Asks for a name. kPending: the name will be among those settle() returns.
  Lookup lookup(const std::string& host, std::int64_t now_us);
  // A connection to the name failed: its answer is out of date.
  void distrust(const std::string& host, std::int64_t now_us);

  void on_socket(int descriptor, bool in, bool out);
  // Takes in answers and looks at timers. Returns the names for which
  // somebody waits and lookup() has an answer now.
  std::vector<std::string> settle(std::int64_t now_us);
  // When settle() has something to do without a socket's event, in the time of
  // settle(); INT64_MAX: never.
  std::int64_t next_deadline_us(std::int64_t now_us);

  std::size_t running() const;  // lookups, waiting ones included

 private:
  struct Impl;
  explicit Resolver(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace webhooks
