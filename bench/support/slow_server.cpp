// Purpose: a receiver that answers every request after the same delay, for
// thousands of connections at once, so that the benchmark measures the sender.
//   slow_server PORT DELAY_MS
// Listens on every 127.0.0.0/8 address, prints that it does, and ends when its
// standard input closes.
// Thread: one.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>

namespace {

using Clock = std::chrono::steady_clock;

struct Due {
  Clock::time_point at;
  int socket;
};

constexpr char kAnswer[] = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

int listen_on(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) !=
          0 ||
      listen(listener, 65535) != 0) {
    std::perror("slow_server");
    std::exit(1);
  }
  return listener;
}

void watch(int epoll, int descriptor) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

void accept_all(int epoll, int listener) {
  for (;;) {
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    const int client = accept4(listener, reinterpret_cast<sockaddr*>(&peer),
                               &size, SOCK_NONBLOCK);
    if (client < 0) return;
    // Serves this machine only.
    if ((ntohl(peer.sin_addr.s_addr) >> 24) != 127) {
      close(client);
    } else {
      watch(epoll, client);
    }
  }
}

// The delay is the same for all, so the first request is due first.
int answer_due(std::deque<Due>& queue) {
  const auto now = Clock::now();
  while (!queue.empty() && queue.front().at <= now) {
    static_cast<void>(
        !send(queue.front().socket, kAnswer, sizeof kAnswer - 1, MSG_NOSIGNAL));
    queue.pop_front();
  }
  if (queue.empty()) return -1;
  const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(
      queue.front().at - now);
  return static_cast<int>(wait.count()) + 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGPIPE, SIG_IGN);
  const int listener = listen_on(std::atoi(argv[1]));
  std::puts("listening");
  std::fflush(stdout);
  const auto delay = std::chrono::milliseconds(std::atoi(argv[2]));
  const int epoll = epoll_create1(0);
  watch(epoll, listener);
  watch(epoll, STDIN_FILENO);
  std::deque<Due> queue;
  std::array<epoll_event, 512> events{};
  std::array<char, 16384> bytes{};
  for (;;) {
    const int wait_ms = answer_due(queue);
    const int count = epoll_wait(epoll, events.data(), events.size(), wait_ms);
    for (int i = 0; i < count; ++i) {
      const int descriptor = events[static_cast<std::size_t>(i)].data.fd;
      if (descriptor == listener) {
        accept_all(epoll, listener);
        continue;
      }
      const ssize_t got = read(descriptor, bytes.data(), bytes.size());
      if (descriptor == STDIN_FILENO && got <= 0) return 0;
      if (got <= 0) {
        close(descriptor);
      } else if (descriptor != STDIN_FILENO) {
        queue.push_back({Clock::now() + delay, descriptor});
      }
    }
  }
}
