// Purpose: listening sockets on loopback, for the test server and its traps.
// Ownership: every object owns its descriptors.
// Thread: one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace webhooks::test {

class Listener {
 public:
  enum class Backlog : std::uint8_t {
    kLong,
    kFull,  // so full that the kernel drops every further SYN
    kNone,  // bound, not listening: connections are refused
  };
  Listener(const std::string& ip, Backlog backlog);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int fd() const noexcept { return fd_; }
  std::uint16_t port() const noexcept { return port_; }
  // A non-blocking connection from loopback, or -1 if there is none now.
  int accept_local() const;

 private:
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::vector<int> fillers_;
};

// Closes with RST.
void reset_close(int fd);

}  // namespace webhooks::test
