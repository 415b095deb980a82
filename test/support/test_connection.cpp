// Purpose: reads requests off one connection and plays the scripted replies.
// Ownership: see the header.
// Thread: the server's.
#include "test_connection.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

namespace webhooks::test {
namespace {

// One turn writes no more than this, so that an endless answer does not keep
// the other connections from theirs.
constexpr std::size_t kTurnBytesMax = 256 * 1024;
constexpr std::size_t kInputBytesMax = 8 * 1024 * 1024;

}  // namespace

Connection::Connection(ConnectionHost& host, int fd, std::size_t number,
                       SSL* ssl, bool mute)
    : host_(host),
      fd_(fd),
      number_(number),
      ssl_(ssl),
      handshaken_(ssl == nullptr),
      mute_(mute) {}

Connection::~Connection() { close(false); }

void Connection::close(bool reset) {
  if (fd_ < 0) {
    return;
  }
  end_reply();
  if (ssl_ != nullptr) {
    if (!reset && handshaken_) {
      ERR_clear_error();
      SSL_shutdown(ssl_);
    }
    SSL_free(ssl_);
    ssl_ = nullptr;
  }
  if (reset) {
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  ::close(fd_);
  fd_ = -1;
  wake_at_.reset();
}

bool Connection::handshake() {
  ERR_clear_error();
  const int code = SSL_accept(ssl_);
  if (code == 1) {
    handshaken_ = true;
    return true;
  }
  const int error = SSL_get_error(ssl_, code);
  wants_write_ = error == SSL_ERROR_WANT_WRITE;
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
    // Not closed at once: what the client still sends would be answered by a
    // reset, which overtakes the alert that says why.
    host_.tls_failed();
    SSL_free(ssl_);
    ssl_ = nullptr;
    handshaken_ = true;
    draining_ = true;
    ::shutdown(fd_, SHUT_WR);
  }
  return false;
}

Connection::Io Connection::fill() {
  std::array<char, 65536> buffer;
  for (;;) {
    ssize_t got = 0;
    if (ssl_ != nullptr) {
      ERR_clear_error();
      got = SSL_read(ssl_, buffer.data(), static_cast<int>(buffer.size()));
      if (got <= 0) {
        const int error = SSL_get_error(ssl_, static_cast<int>(got));
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE
                   ? Io::kBlocked
                   : Io::kGone;
      }
    } else {
      got = ::recv(fd_, buffer.data(), buffer.size(), 0);
      if (got == 0) {
        return Io::kGone;
      }
      if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? Io::kBlocked : Io::kGone;
      }
    }
    std::string_view bytes(buffer.data(), static_cast<std::size_t>(got));
    const std::size_t late_body = std::min(body_left_, bytes.size());
    body_left_ -= late_body;
    bytes.remove_prefix(late_body);
    if (!mute_ && !draining_ && in_.size() < kInputBytesMax) {
      in_.append(bytes);
    }
  }
}

Connection::Io Connection::write(std::string_view bytes, std::size_t& written) {
  written = 0;
  ssize_t put = 0;
  if (ssl_ != nullptr) {
    ERR_clear_error();
    put = SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()));
    if (put <= 0) {
      const int error = SSL_get_error(ssl_, static_cast<int>(put));
      return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE
                 ? Io::kBlocked
                 : Io::kGone;
    }
  } else {
    put = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put < 0) {
      return errno == EAGAIN || errno == EINTR ? Io::kBlocked : Io::kGone;
    }
  }
  written = static_cast<std::size_t>(put);
  host_.sent(written);
  return Io::kDone;
}

bool Connection::parse_head(std::string_view head, Request& request,
                            std::size_t& content_length) const {
  const auto next_line = [&head] {
    const std::size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    return line;
  };
  const std::string_view first = next_line();
  const std::size_t space = first.find(' ');
  const std::size_t last = first.rfind(' ');
  if (space == std::string_view::npos || last == space) {
    return false;
  }
  request.method = first.substr(0, space);
  request.target = first.substr(space + 1, last - space - 1);
  request.version = first.substr(last + 1);
  while (!head.empty()) {
    const std::string_view line = next_line();
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) {
      return false;
    }
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && value.front() == ' ') {
      value.remove_prefix(1);
    }
    request.headers.emplace_back(line.substr(0, colon), value);
  }
  const std::string length = request.header("content-length");
  std::from_chars(length.data(), length.data() + length.size(), content_length);
  return true;
}

void Connection::describe_peer(Request& request) {
  sockaddr_storage local{};
  socklen_t size = sizeof local;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&local), &size) == 0) {
    const void* address =
        local.ss_family == AF_INET6
            ? static_cast<const void*>(
                  &reinterpret_cast<const sockaddr_in6*>(&local)->sin6_addr)
            : &reinterpret_cast<const sockaddr_in*>(&local)->sin_addr;
    ::inet_ntop(local.ss_family, address, text.data(), text.size());
    request.local_ip = text.data();
  }
  if (ssl_ != nullptr) {
    const char* name = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name);
    request.server_name = name == nullptr ? "" : name;
    request.tls_version = SSL_get_version(ssl_);
    request.sent_client_cert = SSL_get0_peer_certificate(ssl_) != nullptr;
  }
}

// Takes one request off the input, if a whole one is there.
bool Connection::take_request(Clock::time_point now) {
  const std::size_t head_end = in_.find("\r\n\r\n");
  if (head_end == std::string::npos) {
    return false;
  }
  Request request;
  std::size_t content_length = 0;
  if (!parse_head(std::string_view(in_).substr(0, head_end), request,
                  content_length)) {
    close(false);
    return false;
  }
  const std::size_t have = in_.size() - head_end - 4;
  const std::string path = request.path();
  if (have < content_length && !host_.is_early(path)) {
    return false;
  }
  const std::size_t body = std::min(have, content_length);
  request.body = in_.substr(head_end + 4, body);
  in_.erase(0, head_end + 4 + body);
  body_left_ = content_length - body;
  request.connection = number_;
  request.on_connection = ++requests_;
  request.at = now;
  request.at_unix_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  describe_peer(request);
  path_ = path;
  begin_reply(request);
  return true;
}

void Connection::begin_reply(const Request& request) {
  reply_ = host_.begin(request);
  replying_ = true;
  step_ = 0;
  offset_ = 0;
}

void Connection::end_reply() {
  if (replying_) {
    replying_ = false;
    host_.end(path_);
  }
}

bool Connection::play_send(const Step& step, Clock::time_point now) {
  const bool endless = step.kind == Step::Kind::kEndless;
  std::size_t turn = 0;
  while (endless || offset_ < step.data.size()) {
    const std::string_view rest =
        std::string_view(step.data).substr(offset_ % step.data.size());
    const std::size_t piece =
        step.piece == 0 ? rest.size() : std::min(step.piece, rest.size());
    std::size_t written = 0;
    const Io io = write(rest.substr(0, piece), written);
    if (io == Io::kGone) {
      close(false);
      return false;
    }
    offset_ = (offset_ + written) %
              (endless ? step.data.size() : step.data.size() + 1);
    turn += written;
    if (io == Io::kBlocked || turn > kTurnBytesMax) {
      wants_write_ = true;
      return false;
    }
    const bool more = endless || offset_ < step.data.size();
    if (step.ms > 0 && more) {
      wake_at_ = now + std::chrono::milliseconds(step.ms);
      return false;
    }
  }
  return true;
}

bool Connection::play(Clock::time_point now) {
  while (step_ < reply_.steps().size()) {
    const Step& step = reply_.steps()[step_];
    switch (step.kind) {
      case Step::Kind::kSend:
      case Step::Kind::kEndless:
        if (!play_send(step, now)) {
          return false;
        }
        break;
      case Step::Kind::kWait:
        if (offset_ == 0) {
          offset_ = 1;  // the wait has begun
          wake_at_ = now + std::chrono::milliseconds(step.ms);
          return false;
        }
        break;
      case Step::Kind::kFinish:
        end_reply();
        draining_ = true;
        in_.clear();
        if (ssl_ != nullptr) {
          ERR_clear_error();
          SSL_shutdown(ssl_);
        }
        ::shutdown(fd_, SHUT_WR);
        return false;
      case Step::Kind::kClose:
        close(false);
        return false;
      case Step::Kind::kReset:
        close(true);
        return false;
      case Step::Kind::kHang:
        return false;
    }
    ++step_;
    offset_ = 0;
  }
  end_reply();
  return true;
}

void Connection::drive(Clock::time_point now) {
  if (gone()) {
    return;
  }
  wants_write_ = false;
  if (!mute_ && !handshaken_ && !handshake()) {
    return;
  }
  if (mute_) {
    // A mute server speaks no TLS either: what comes in is read raw.
    SSL_free(ssl_);
    ssl_ = nullptr;
  }
  if (fill() == Io::kGone) {
    close(false);
    return;
  }
  // Woken by a read while a pause is on: the pause goes on.
  if (wake_at_ && *wake_at_ > now) {
    return;
  }
  wake_at_.reset();
  while (!gone() && !draining_ && !mute_) {
    if (replying_ ? !play(now) : !take_request(now)) {
      return;
    }
  }
}

}  // namespace webhooks::test
