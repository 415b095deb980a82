// Purpose: a name server inside the test, over UDP and TCP. It sends the
// answers it is given, late, or not at all.
// Ownership: owns its thread and its sockets; they die with it.
// Thread: any, except that handlers run on the server's thread and must not
// call back into it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace webhooks::test {

struct DnsAnswer {
  // Of both families; a question gets those of its own.
  std::vector<std::string> addresses;
  std::uint32_t ttl_s = 60;
  std::uint8_t code = 0;  // RCODE
};
inline constexpr std::uint8_t kServFail = 2;
inline constexpr std::uint8_t kNxDomain = 3;

// nullopt: not yet. The handler is asked again soon, until the server dies.
using DnsHandler =
    std::function<std::optional<DnsAnswer>(const std::string& name, bool v6)>;

class DnsServer {
 public:
  explicit DnsServer(DnsHandler handler);
  // Every name is at 127.0.0.1. Those that begin with "held" get no answer
  // until release().
  DnsServer();
  // Every name has these addresses.
  explicit DnsServer(std::vector<std::string> addresses);
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  void release();

  std::string address() const;  // as EngineOptions::dns_servers takes it
  // A questions for a name, which come with AAAA questions in pairs.
  std::size_t count(const std::string& name) const;
  std::size_t held() const;  // questions of both kinds without an answer

 private:
  struct Impl;
  std::shared_ptr<std::atomic<bool>> released_ =
      std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<Impl> impl_;
};

}  // namespace webhooks::test
