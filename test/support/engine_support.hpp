// Purpose: an engine that the test's own thread drives, and its input.
// Ownership: an EngineRun owns its engine and the attempts it reported.
// Thread: the test's.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "timing.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::test {

// Standard Webhooks secrets for tests; the bytes are 32 times 'A' and 'B'.
inline constexpr const char* kSecretA =
    "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
inline constexpr const char* kSecretB =
    "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

// May reach loopback over plain HTTP; retries after milliseconds, without
// jitter; no rate limit that a test would notice.
EngineOptions test_options();

// `v1,<base64>` by OpenSSL alone, to judge the engine's signatures by.
std::string hmac_signature(const std::string& secret, const std::string& id,
                           const std::string& timestamp,
                           const std::string& body);

Delivery delivery(std::string id, std::string webhook_id,
                  std::string body = "{}");

std::int64_t unix_ms();

class EngineRun {
 public:
  explicit EngineRun(EngineOptions options = test_options());

  Engine& engine() { return *engine_; }
  const EngineOptions& options() const { return options_; }

  // A URL that check_url lets through, and one secret. `change` may alter the
  // endpoint before it goes in.
  void endpoint(const std::string& webhook_id, const std::string& url,
                const std::function<void(Endpoint&)>& change = {});
  // Requires that all are taken.
  void submit(Delivery delivery);
  void submit(std::vector<Delivery> deliveries);

  // One turn of the loop.
  void turn(std::uint32_t max_wait_ms = 20);
  bool until(const std::function<bool()>& done,
             std::chrono::milliseconds patience = std::chrono::seconds(10));
  bool until_attempts(std::size_t count, std::chrono::milliseconds patience =
                                             std::chrono::seconds(10));
  void run_for(std::chrono::milliseconds time);

  const std::vector<Attempt>& attempts() const { return attempts_; }
  std::vector<Attempt> attempts(const std::string& delivery_id) const;
  // Submits and drives until the next attempt of this delivery is reported.
  Attempt outcome(Delivery delivery);
  // Deliveries that ended: state neither pending nor parked.
  std::size_t ended() const { return ended_; }

 private:
  EngineOptions options_;
  std::unique_ptr<Engine> engine_;
  std::vector<Attempt> attempts_;
  std::size_t ended_ = 0;
};

// Puts an endpoint that check_url would refuse.
Url unchecked_url(const std::string& scheme, const std::string& host,
                  std::uint16_t port, const std::string& path);

}  // namespace webhooks::test
