// Purpose: asks the hosts file and name servers for addresses, with c-ares.
// Names are absolute: no search domains, no aliases.
// Ownership: owns the c-ares channel. Whoever asks outlives it.
// Thread: loop only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "webhooks/address_policy.hpp"
#include "webhooks/result.hpp"

struct ares_channeldata;
struct ares_addrinfo;

namespace webhooks {

// To one question.
struct DnsResult {
  std::vector<IpAddress> addresses;
  std::int64_t ttl_us = kNever;
  std::string failure;     // without addresses: why
  bool denied = false;     // the name does not exist, or has no address
  bool timed_out = false;  // no server answered
};

class DnsChannel {
 public:
  struct Options {
    std::string servers;  // "address:port", by commas; empty: the system's
    std::string resolv_conf = "/etc/resolv.conf";
    // Watches a socket of c-ares; neither: the socket is about to be closed.
    // What happens to it goes to on_socket().
    std::function<void(int descriptor, bool in, bool out)> watch;
  };
  // Called while the channel is: no call to it from within.
  using OnAnswer = std::function<void(DnsResult)>;

  // Errors: `dns_servers` (cannot be read), `system_limit`.
  static Result<std::unique_ptr<DnsChannel>> create(Options options);
  ~DnsChannel();
  DnsChannel(const DnsChannel&) = delete;
  DnsChannel& operator=(const DnsChannel&) = delete;

  // Empty: the file does not have the name.
  std::vector<IpAddress> hosts_file(const std::string& host);
  // One question: A, or AAAA. May be answered before this returns. An answer
  // that is not there when the channel dies or reopens is not given.
  void ask(const std::string& host, IpAddress::Family family,
           OnAnswer on_answer);

  // Takes over a resolv.conf that has changed, if it is time to look: then all
  // questions are to be asked again.
  bool reopen_if_changed(std::int64_t now_us);

  void on_socket(int descriptor, bool in, bool out);
  void on_time(std::int64_t now_us);
  std::int64_t next_deadline_us(std::int64_t now_us);

 private:
  struct Delete {
    void operator()(ares_channeldata* channel) const noexcept;
  };
  using Channel = std::unique_ptr<ares_channeldata, Delete>;

  explicit DnsChannel(Options options) : options_(std::move(options)) {}
  Status open();
  static void on_ares_answer(void* on_answer, int status, int timeouts,
                             ares_addrinfo* list) noexcept;
  static void on_ares_socket(void* channel, int descriptor, int in,
                             int out) noexcept;

  Options options_;
  Channel channel_;
  std::int64_t config_ns_ = 0;
  std::int64_t config_looked_us_ = 0;
  std::int64_t due_us_ = kNever;  // when c-ares wants to be called
  bool called_ = false;           // since due_us_ was reckoned
};

}  // namespace webhooks
