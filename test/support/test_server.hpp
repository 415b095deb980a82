// Purpose: an HTTP/1.1 server inside the test that sends the answers it is
// given, however bad, and records its requests. Bytes go over real sockets.
// Ownership: the server owns its thread, its sockets and its records; they die
// with it.
// Thread: any, except that handlers run on the server's thread and must not
// call back into it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "reply.hpp"
#include "tls_support.hpp"

namespace webhooks::test {

struct Request {
  std::string method;
  std::string target;  // as sent, with the query
  std::string version;
  Headers headers;  // in order, names as sent
  std::string body;
  std::string local_ip;     // the address that was dialled
  std::string server_name;  // TLS: the name the client asked for
  std::string tls_version;  // TLS: "TLSv1.3"
  bool sent_client_cert = false;
  std::size_t connection = 0;     // from 1, in the order of accepting
  std::size_t on_connection = 0;  // from 1, on that connection
  std::chrono::steady_clock::time_point at;  // headers complete
  std::int64_t at_unix_ms = 0;

  // Without the query.
  std::string path() const;
  // Of the first header of that name (any case); empty if there is none.
  std::string header(std::string_view name) const;
  std::size_t header_count(std::string_view name) const;
};

class Listener;

using Handler = std::function<Reply(const Request&)>;

struct ServerOptions {
  enum class Accept : std::uint8_t {
    kAccept,
    kReset,  // RST as soon as a connection is there
    kNever,  // a full backlog: the SYN is dropped
    kMute,   // accepts and reads, but never a byte back (no TLS handshake)
  };
  // "0.0.0.0" listens on every 127.x.y.z; whoever comes from elsewhere is
  // turned away unread.
  std::string ip = "127.0.0.1";
  Accept accept = Accept::kAccept;
  std::shared_ptr<const ServerTls> tls;  // null: plain HTTP
  // Sent, as it is, as soon as a connection is there.
  std::string greeting;
};

class TestServer {
 public:
  explicit TestServer(ServerOptions options = {});
  ~TestServer();
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  std::uint16_t port() const noexcept;
  std::string url(std::string_view path) const;
  std::string url(std::string_view host, std::string_view path) const;

  // What a path (without query) answers. A list is used up one by one; its
  // last entry stays. Any other path: 200, empty.
  void on(std::string path, Reply reply);
  void on(std::string path, std::vector<Reply> replies);
  void on(std::string path, Handler handler);
  void otherwise(Handler handler);

  std::vector<Request> requests() const;
  std::vector<Request> requests(std::string_view path) const;
  std::size_t count() const;
  std::size_t count(std::string_view path) const;

  std::size_t connections() const;       // accepted so far
  std::size_t connections_open() const;  // now
  std::size_t tls_failures() const;      // handshakes that came to nothing
  // The most requests ever being answered at the same time.
  std::size_t in_flight_peak() const;
  std::size_t in_flight_peak(std::string_view path) const;
  // Bytes written, to show that an endless answer was cut short.
  std::uint64_t bytes_sent() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A listening socket that nobody should ever dial.
class Canary {
 public:
  explicit Canary(const std::string& ip = "127.0.0.1");
  ~Canary();
  Canary(const Canary&) = delete;
  Canary& operator=(const Canary&) = delete;

  std::uint16_t port() const noexcept;
  // Connections since the last call.
  std::size_t touched();

 private:
  std::unique_ptr<Listener> listener_;
};

// A port on which nothing listens: connections are refused. Held bound, so
// that no test that runs at the same time is given it.
class ClosedPort {
 public:
  explicit ClosedPort(const std::string& ip = "127.0.0.1");
  ~ClosedPort();
  ClosedPort(const ClosedPort&) = delete;
  ClosedPort& operator=(const ClosedPort&) = delete;

  std::uint16_t port() const noexcept;

 private:
  std::unique_ptr<Listener> listener_;
};

}  // namespace webhooks::test
