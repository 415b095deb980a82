// Purpose: whatever bytes a receiver answers with, the engine reports one
// attempt that ends in time, within its limits, with text that can be stored.
// Ownership: one engine and one server for all runs.
// Thread: the server has a thread of its own.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "allowing.hpp"
#include "require.hpp"
#include "webhooks/engine.hpp"
#include "webhooks/utf8.hpp"

using namespace webhooks_fuzz;

namespace {

constexpr std::uint32_t kTimeoutMs = 2'000;

// Sends the answer on every connection, without waiting for the request, and
// closes it.
class Server {
 public:
  Server() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    ::sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<::sockaddr*>(&address);
    require(::bind(listener_, any, size) == 0 && ::listen(listener_, 16) == 0 &&
            ::getsockname(listener_, any, &size) == 0);
    port_ = ntohs(address.sin_port);
    std::thread([this] { serve(); }).detach();
  }

  std::uint16_t port() const { return port_; }
  void answer(std::string_view bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    answer_ = bytes;
  }

 private:
  void serve() {
    for (;;) {
      const int connection = ::accept(listener_, nullptr, nullptr);
      if (connection < 0) continue;
      std::string bytes;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        bytes = answer_;
      }
      std::size_t sent = 0;
      while (sent < bytes.size()) {
        const ::ssize_t now =
            ::send(connection, bytes.data() + sent, bytes.size() - sent, 0);
        if (now <= 0) break;
        sent += static_cast<std::size_t>(now);
      }
      // Reading the request first would be fairer. A reset instead of an end
      // loses the answer, so its sender waits for the other side to close.
      ::shutdown(connection, SHUT_WR);
      char request[4096];
      while (::recv(connection, request, sizeof request, 0) > 0) {
      }
      ::close(connection);
    }
  }

  int listener_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::string answer_;
};

webhooks::UrlPolicy policy() {
  webhooks::UrlPolicy policy;
  policy.https_only = false;
  policy.addresses = webhooks_test::allowing("127.0.0.1:*");
  return policy;
}

std::unique_ptr<webhooks::Engine> new_engine() {
  std::signal(SIGPIPE, SIG_IGN);
  webhooks::EngineOptions options;
  options.policy = policy();
  options.timeout_ms = kTimeoutMs;
  options.lane_rate_per_s = options.destination_rate_per_s = 1'000'000;
  options.circuit_failures = 0;
  options.retry_delays_ms = {};
  options.multi_handles = 1;
  auto engine = webhooks::Engine::create(options);
  require(engine.ok());
  return std::move(engine).value();
}

webhooks::Endpoint endpoint_at(const Server& server, std::string webhook_id) {
  auto url = webhooks::check_url(
      "http://127.0.0.1:" + std::to_string(server.port()) + "/", policy());
  auto key =
      webhooks::SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
  require(url.ok() && key.ok());
  webhooks::Endpoint endpoint;
  endpoint.webhook_id = std::move(webhook_id);
  endpoint.url = std::move(url).value();
  endpoint.keys.push_back({std::move(key).value(), std::nullopt});
  return endpoint;
}

// libcurl takes the name of the protocol in any case.
bool names_http(std::string_view answer) {
  constexpr std::string_view kName = "HTTP/";
  const auto same = [](char a, char b) {
    return (a >= 'a' && a <= 'z' ? a - 'a' + 'A' : a) == b;
  };
  return std::search(answer.begin(), answer.end(), kName.begin(), kName.end(),
                     same) != answer.end();
}

void check(const webhooks::Attempt& attempt, std::string_view answer) {
  require(attempt.delivery_id == "msg_1" && attempt.number == 1);
  require(attempt.status <= 999);
  require(attempt.detail.size() <= webhooks::kDetailBytesMax);
  require(webhooks::is_utf8(attempt.detail));
  require(attempt.response_headers.size() <= webhooks::kResponseHeadersKeptMax);
  require(attempt.response_body.size() <= 16 * 1024);
  require((attempt.error == webhooks::ErrorClass::kNone) ==
          (attempt.state == webhooks::DeliveryState::kDelivered));
  require(attempt.state != webhooks::DeliveryState::kDelivered ||
          (attempt.status / 100 == 2 && names_http(answer)));
  require(!attempt.total_us || *attempt.total_us < 2 * kTimeoutMs * 1000ULL);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  static auto* const server = new Server();
  static auto* const engine = new_engine().release();
  static std::uint64_t runs = 0;
  const std::string_view answer = text_of(data, size);
  server->answer(answer);
  // A webhook of its own: an answer like 429 holds up the next delivery.
  const std::string webhook_id = "wh_" + std::to_string(++runs);
  require(engine->put_endpoint(endpoint_at(*server, webhook_id)).ok());
  webhooks::Delivery delivery;
  delivery.id = "msg_1";
  delivery.webhook_id = webhook_id;
  delivery.body = std::make_shared<const std::string>("{}");
  delivery.retry = false;
  std::vector<webhooks::Delivery> deliveries;
  deliveries.push_back(std::move(delivery));
  require(engine->submit(deliveries).ok());
  std::vector<webhooks::Attempt> finished;
  while (finished.empty()) {
    require(engine->run_once(100, finished).ok());
  }
  require(finished.size() == 1);
  require(engine->delete_endpoint(webhook_id).ok());
  check(finished.front(), answer);
  return 0;
}
