// Purpose: the event loop handles epoll's events of idle connections.
// Thread: one; the server has its own.
#include "core/event_loop.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "test_server.hpp"
#include "timing.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

constexpr std::chrono::milliseconds kConnectTimeout = 800ms;

// A transfer whose callback for the body can be made to wait or to work.
struct Get {
  CurlEasy easy{curl_easy_init()};
  std::chrono::steady_clock::time_point busy_until{};
  std::chrono::milliseconds work{};

  void start(EventLoop& loop, const std::string& url) {
    CURL* handle = easy.get();
    curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(kConnectTimeout.count()));
    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETFUNCTION,
                     EventLoop::on_close_socket);
    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETDATA, &loop);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, this);
    REQUIRE(loop.add(0, handle));
  }

  static std::size_t on_body(char*, std::size_t size, std::size_t count,
                             void* get) {
    std::this_thread::sleep_until(static_cast<Get*>(get)->busy_until);
    burn_cpu(static_cast<Get*>(get)->work);
    return size * count;
  }
};

}  // namespace

// curl of Debian 12 keeps the timer of the connect timeout while a request runs
// and looks at the socket when that timer is due. The first answer takes so
// long to read that the other timers are due when the second one's event is
// handed to curl. Then curl reads the third answer, too, whose own event is
// still to come.
TEST_CASE("event loop: a stale event does not close the connection") {
  TestServer server;
  const std::vector<std::string> paths = {"/1", "/2", "/3"};
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const auto wait_ms = static_cast<std::uint32_t>(20 * (i + 1));
    server.on(paths[i], Reply().wait(wait_ms).answer(200, {}, "body"));
  }
  auto created = EventLoop::create({1, 8});
  REQUIRE(created.ok());
  EventLoop& loop = *created.value();
  std::size_t finished = 0;
  std::size_t failed = 0;
  const EventLoop::Done done = [&](CURL*, CURLcode code) {
    ++finished;
    failed += code == CURLE_OK ? 0U : 1U;
  };
  const auto until_finished = [&](std::size_t count) {
    return eventually([&] {
      loop.poll(1'000, done);
      return finished == count;
    });
  };
  std::vector<Get> gets(paths.size());
  gets[0].busy_until =
      std::chrono::steady_clock::now() + kConnectTimeout * 5 / 4;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    gets[i].start(loop, server.url(paths[i]));
  }
  REQUIRE(eventually([&] {
    loop.poll(0, done);
    return server.count() == paths.size();
  }));
  // All answers are there: one wait returns all events.
  const std::size_t bytes = paths.size() * answer_bytes(200, {}, "body").size();
  REQUIRE(eventually([&] { return server.bytes_sent() >= bytes; }));
  REQUIRE(until_finished(3));
  for (Get& get : gets) {
    get.start(loop, server.url("/"));
  }
  REQUIRE(until_finished(6));
  CHECK(failed == 0);
  CHECK(server.connections() == 3);
  gets.clear();
  loop.close_multis();
}

// A wait is not the transfer's fault: something else had the processor.
TEST_CASE("event loop: a slice with much work names its transfer") {
  TestServer server;
  server.on("/waits", answer(200, {}, "body"));
  server.on("/works", Reply().wait(50).answer(200, {}, "body"));
  auto created = EventLoop::create({1, 8});
  REQUIRE(created.ok());
  EventLoop& loop = *created.value();
  std::vector<CURL*> slow;
  loop.set_on_slow([&](CURL* easy, std::int64_t took_us) {
    CHECK(took_us >= 250'000);
    slow.push_back(easy);
  });
  std::vector<Get> gets(3);
  gets[0].busy_until = std::chrono::steady_clock::now() + 400ms * kSlowdown;
  gets[0].start(loop, server.url("/waits"));
  gets[1].start(loop, server.url("/"));
  std::size_t finished = 0;
  const auto until_finished = [&](std::size_t count) {
    return eventually([&] {
      loop.poll(1'000, [&](CURL*, CURLcode) { ++finished; });
      return finished == count;
    });
  };
  REQUIRE(until_finished(2));
  CHECK(slow.empty());
  gets[2].work = 1s;
  gets[2].start(loop, server.url("/works"));
  // Otherwise the answer could be read as this timer is due, for all transfers.
  curl_easy_setopt(gets[2].easy.get(), CURLOPT_CONNECTTIMEOUT_MS, 60'000L);
  REQUIRE(until_finished(3));
  CHECK(slow == std::vector<CURL*>{gets[2].easy.get()});
  gets.clear();
  loop.close_multis();
}
