// Purpose: see the header.
// Ownership: see the header.
// Thread: the server's own, but for what the mutex guards.
#include "dns_server.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

namespace webhooks::test {
namespace {

constexpr std::size_t kHeaderBytes = 12;
constexpr std::size_t kDatagramBytesMax = 1'232;
constexpr std::uint16_t kTypeA = 1;
constexpr std::uint16_t kTypeAaaa = 28;
constexpr int kAskAgainMs = 5;

struct Question {
  std::string packet;  // header and question as they came, without options
  std::string name;
  bool v6 = false;
  sockaddr_in from{};   // UDP
  int connection = -1;  // TCP
};

std::uint16_t get16(std::string_view packet, std::size_t at) {
  return static_cast<std::uint16_t>(static_cast<std::uint8_t>(packet[at]) << 8 |
                                    static_cast<std::uint8_t>(packet[at + 1]));
}

void put16(std::string& packet, std::size_t value) {
  packet.push_back(static_cast<char>(value >> 8 & 0xffU));
  packet.push_back(static_cast<char>(value & 0xffU));
}

std::optional<Question> parse(std::string_view packet) {
  Question question;
  std::size_t at = kHeaderBytes;
  while (at < packet.size() && packet[at] != 0) {
    const auto size = static_cast<std::uint8_t>(packet[at]);
    if (at + 1 + size >= packet.size()) {
      return std::nullopt;
    }
    question.name += question.name.empty() ? "" : ".";
    question.name += packet.substr(at + 1, size);
    at += 1U + size;
  }
  if (at + 5 > packet.size()) {
    return std::nullopt;
  }
  question.v6 = get16(packet, at + 1) == kTypeAaaa;
  question.packet = packet.substr(0, at + 5);
  return question;
}

std::string reply_to(const Question& question, const DnsAnswer& answer) {
  std::string records;
  std::size_t count = 0;
  for (const std::string& text : answer.addresses) {
    std::array<char, 16> bytes{};
    const bool v6 = text.find(':') != std::string::npos;
    if (v6 != question.v6) {
      continue;
    }
    if (::inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), bytes.data()) != 1) {
      throw std::runtime_error("not an address: " + text);
    }
    put16(records, 0xc000U | kHeaderBytes);  // the name of the question
    put16(records, v6 ? kTypeAaaa : kTypeA);
    put16(records, 1);
    put16(records, answer.ttl_s >> 16);
    put16(records, answer.ttl_s & 0xffffU);
    put16(records, v6 ? 16 : 4);
    records.append(bytes.data(), v6 ? 16 : 4);
    ++count;
  }
  const bool cut = question.connection < 0 &&
                   question.packet.size() + records.size() > kDatagramBytesMax;
  std::string reply = question.packet.substr(0, 2);
  put16(reply, 0x8180U | (cut ? 0x0200U : 0U) | answer.code);
  put16(reply, 1);
  put16(reply, cut ? 0 : count);
  put16(reply, 0);
  put16(reply, 0);
  reply += question.packet.substr(kHeaderBytes);
  return cut ? reply : reply + records;
}

}  // namespace

struct DnsServer::Impl {
  DnsHandler handler;
  int udp = -1;
  int tcp = -1;
  std::uint16_t port = 0;
  std::map<int, std::string> connections;  // and what they sent so far
  std::vector<Question> held;
  std::atomic<bool> stopping{false};
  mutable std::mutex mutex;
  std::map<std::string, std::size_t> counts;  // under mutex
  std::size_t held_count = 0;                 // under mutex
  std::thread thread;

  explicit Impl(DnsHandler with) : handler(std::move(with)) {
    // Another process may hold the TCP port of a UDP port that is free.
    for (int tries = 0; tries < 20 && !listen(); ++tries) {
      close_listeners();
    }
    if (tcp < 0) {
      throw std::runtime_error("no port for a name server");
    }
    thread = std::thread([this] { serve(); });
  }
  ~Impl() {
    stopping = true;
    thread.join();
    for (const auto& connection : connections) {
      ::close(connection.first);
    }
    close_listeners();
  }

  void close_listeners() {
    ::close(std::exchange(udp, -1));
    ::close(std::exchange(tcp, -1));
  }

  bool listen() {
    udp = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    tcp = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int bytes = 4 << 20;  // thousands of questions may come at once
    ::setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    if (::bind(udp, plain, size) != 0 ||
        ::getsockname(udp, plain, &size) != 0) {
      return false;
    }
    port = ntohs(address.sin_port);
    return ::bind(tcp, plain, size) == 0 && ::listen(tcp, 16) == 0;
  }

  void serve() {
    while (!stopping) {
      std::vector<pollfd> sockets = {{udp, POLLIN, 0}, {tcp, POLLIN, 0}};
      for (const auto& connection : connections) {
        sockets.push_back({connection.first, POLLIN, 0});
      }
      ::poll(sockets.data(), sockets.size(), kAskAgainMs);
      read_datagrams();
      for (int fd; (fd = ::accept4(tcp, nullptr, nullptr,
                                   SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
        connections.emplace(fd, std::string());
      }
      for (auto it = connections.begin(); it != connections.end();) {
        it = read_stream(*it) ? std::next(it) : connections.erase(it);
      }
      answer_held();
    }
  }

  void read_datagrams() {
    std::array<char, 2'048> buffer;
    Question peer;
    socklen_t size = sizeof peer.from;
    for (ssize_t bytes;
         (bytes = ::recvfrom(udp, buffer.data(), buffer.size(), 0,
                             reinterpret_cast<sockaddr*>(&peer.from), &size)) >
         0;) {
      take({buffer.data(), static_cast<std::size_t>(bytes)}, peer);
    }
  }

  bool read_stream(std::pair<const int, std::string>& entry) {
    auto& [fd, text] = entry;
    std::array<char, 2'048> buffer;
    const ssize_t bytes = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (bytes == 0) {
      ::close(fd);
      return false;
    }
    if (bytes > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(bytes));
    }
    Question peer;
    peer.connection = fd;
    while (text.size() >= 2 && text.size() >= 2U + get16(text, 0)) {
      const std::size_t packet_bytes = get16(text, 0);
      take(std::string_view(text).substr(2, packet_bytes), peer);
      text.erase(0, 2 + packet_bytes);
    }
    return true;
  }

  void take(std::string_view packet, const Question& peer) {
    auto question = parse(packet);
    if (!question) {
      return;
    }
    question->from = peer.from;
    question->connection = peer.connection;
    const std::lock_guard lock(mutex);
    counts[question->name] += question->v6 ? 0U : 1U;
    held.push_back(std::move(*question));
  }

  void answer_held() {
    std::erase_if(held, [this](const Question& question) {
      const auto answer = handler(question.name, question.v6);
      if (answer) {
        send(question, reply_to(question, *answer));
      }
      return answer.has_value();
    });
    const std::lock_guard lock(mutex);
    held_count = held.size();
  }

  void send(const Question& question, const std::string& reply) const {
    if (question.connection < 0) {
      ::sendto(udp, reply.data(), reply.size(), 0,
               reinterpret_cast<const sockaddr*>(&question.from),
               sizeof question.from);
      return;
    }
    std::string framed;
    put16(framed, reply.size());
    framed += reply;
    ::send(question.connection, framed.data(), framed.size(), MSG_NOSIGNAL);
  }
};

DnsServer::DnsServer(DnsHandler handler)
    : impl_(std::make_unique<Impl>(std::move(handler))) {}

DnsServer::DnsServer(std::vector<std::string> addresses)
    : DnsServer([addresses = std::move(addresses)](const std::string&, bool) {
        return DnsAnswer{addresses};
      }) {}

DnsServer::DnsServer()
    : impl_(std::make_unique<Impl>(
          [released = released_](const std::string& name, bool) {
            return name.starts_with("held") && !*released
                       ? std::nullopt
                       : std::optional(DnsAnswer{{"127.0.0.1"}});
          })) {}

DnsServer::~DnsServer() = default;

void DnsServer::release() { *released_ = true; }

std::string DnsServer::address() const {
  return "127.0.0.1:" + std::to_string(impl_->port);
}

std::size_t DnsServer::count(const std::string& name) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->counts.find(name);
  return found == impl_->counts.end() ? 0 : found->second;
}

std::size_t DnsServer::held() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->held_count;
}

}  // namespace webhooks::test
