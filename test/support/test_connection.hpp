// Purpose: one connection of the test server: reads requests, plays replies.
// Ownership: owns its descriptor and its TLS session.
// Thread: the server's.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "test_server.hpp"

namespace webhooks::test {

// The functions of the server that a connection calls.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  // Whether the next reply to this path begins before the body is in.
  virtual bool is_early(const std::string& path) = 0;
  virtual Reply begin(const Request& request) = 0;
  virtual void end(const std::string& path) = 0;
  virtual void sent(std::size_t bytes) = 0;
  virtual void tls_failed() = 0;
};

class Connection {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(ConnectionHost& host, int fd, std::size_t number, SSL* ssl,
             bool mute);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Does what can be done now.
  void drive(Clock::time_point now);

  int fd() const noexcept { return fd_; }
  bool gone() const noexcept { return fd_ < 0; }
  bool wants_write() const noexcept { return wants_write_; }
  std::optional<Clock::time_point> wake_at() const noexcept { return wake_at_; }

 private:
  enum class Io : std::uint8_t { kDone, kBlocked, kGone };

  bool handshake();
  Io fill();
  Io write(std::string_view bytes, std::size_t& written);
  bool take_request(Clock::time_point now);
  bool parse_head(std::string_view head, Request& request,
                  std::size_t& content_length) const;
  void describe_peer(Request& request);
  void begin_reply(const Request& request);
  void end_reply();
  // False: nothing more can be done now.
  bool play(Clock::time_point now);
  bool play_send(const Step& step, Clock::time_point now);
  void close(bool reset);

  ConnectionHost& host_;
  int fd_;
  std::size_t number_;
  SSL* ssl_;
  bool handshaken_;
  bool mute_;
  std::string in_;
  std::size_t requests_ = 0;
  std::size_t body_left_ = 0;  // of a request that was answered early

  bool replying_ = false;
  bool draining_ = false;
  Reply reply_;
  std::string path_;
  std::size_t step_ = 0;
  std::size_t offset_ = 0;
  bool wants_write_ = false;
  std::optional<Clock::time_point> wake_at_;
};

}  // namespace webhooks::test
