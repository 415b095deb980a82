// Purpose: listening sockets on loopback.
// Ownership: see the header.
// Thread: one at a time.
#include "sockets.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "test_server.hpp"

namespace webhooks::test {
namespace {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

SocketAddress parse_ip(const std::string& ip) {
  SocketAddress out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (::inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    out.size = sizeof(sockaddr_in);
  } else if (::inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    out.size = sizeof(sockaddr_in6);
  } else {
    throw std::runtime_error("not an address: " + ip);
  }
  return out;
}

bool is_loopback(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&peer);
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&peer);
  return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

}  // namespace

void reset_close(int fd) {
  const linger now{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  ::close(fd);
}

Listener::Listener(const std::string& ip, Backlog backlog) {
  SocketAddress address = parse_ip(ip);
  fd_ = ::socket(address.storage.ss_family,
                 SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const auto fail = [this](const char* what) {
    const int error = errno;
    ::close(fd_);
    throw std::runtime_error(std::string(what) + ": " + std::strerror(error));
  };
  if (fd_ < 0 || ::bind(fd_, address.get(), address.size) != 0) {
    fail("bind");
  }
  if (backlog != Backlog::kNone &&
      ::listen(fd_, backlog == Backlog::kFull ? 0 : 4096) != 0) {
    fail("listen");
  }
  address.size = sizeof address.storage;
  if (::getsockname(fd_, address.get(), &address.size) != 0) {
    fail("getsockname");
  }
  port_ = ntohs(reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port);
  // A backlog of 0 still holds one connection; the second filler's SYN is
  // already dropped, and nobody else gets in before it.
  for (int i = 0; backlog == Backlog::kFull && i < 2; ++i) {
    const int filler = ::socket(address.storage.ss_family,
                                SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    static_cast<void>(::connect(filler, address.get(), address.size));
    fillers_.push_back(filler);
  }
}

Listener::~Listener() {
  for (const int filler : fillers_) {
    ::close(filler);
  }
  ::close(fd_);
}

int Listener::accept_local() const {
  for (;;) {
    SocketAddress peer;
    const int fd =
        ::accept4(fd_, peer.get(), &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      return -1;
    }
    if (!is_loopback(peer.storage)) {
      ::close(fd);
      continue;
    }
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
  }
}

Canary::Canary(const std::string& ip)
    : listener_(std::make_unique<Listener>(ip, Listener::Backlog::kLong)) {}
Canary::~Canary() = default;
std::uint16_t Canary::port() const noexcept { return listener_->port(); }

std::size_t Canary::touched() {
  std::size_t count = 0;
  for (int fd = listener_->accept_local(); fd >= 0;
       fd = listener_->accept_local()) {
    ::close(fd);
    ++count;
  }
  return count;
}

ClosedPort::ClosedPort(const std::string& ip)
    : listener_(std::make_unique<Listener>(ip, Listener::Backlog::kNone)) {}
ClosedPort::~ClosedPort() = default;
std::uint16_t ClosedPort::port() const noexcept { return listener_->port(); }

}  // namespace webhooks::test
