// Purpose: see the header.
// Ownership: see the header.
// Thread: the test's.
#include "engine_support.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/allowing.hpp"
#include "catch.hpp"
#include "tls_support.hpp"

namespace webhooks::test {
namespace {

std::string base64_decode(std::string_view text) {
  std::string out(text.size(), '\0');
  const int size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(text.data()),
                      static_cast<int>(text.size()));
  REQUIRE(size >= 0);
  std::size_t padding = 0;
  while (padding < text.size() && text[text.size() - 1 - padding] == '=') {
    ++padding;
  }
  out.resize(static_cast<std::size_t>(size) - padding);
  return out;
}

// The system's bundle takes longer to read than most tests take to run.
const std::string& small_ca_file() {
  static const TempFile file(Authority().pem());
  return file.path();
}

}  // namespace

EngineOptions test_options() {
  EngineOptions options;
  options.policy.https_only = false;
  options.policy.addresses = webhooks_test::allowing_loopback();
  options.retry_delays_ms = {10, 20, 30};
  options.jitter_percent = 0;
  options.timeout_ms = 5'000;
  options.connect_timeout_ms = 2'000;
  options.lane_rate_per_s = 100'000;
  options.destination_rate_per_s = 100'000;
  options.destination_in_flight_max = 1'000;
  options.circuit_failures = 0;
  options.multi_handles = 4;
  options.ca_file = small_ca_file();
  return options;
}

std::string hmac_signature(const std::string& secret, const std::string& id,
                           const std::string& timestamp,
                           const std::string& body) {
  const std::string key = base64_decode(std::string_view(secret).substr(6));
  const std::string text = id + '.' + timestamp + '.' + body;
  std::array<unsigned char, EVP_MAX_MD_SIZE> mac{};
  unsigned int mac_size = 0;
  REQUIRE(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
               reinterpret_cast<const unsigned char*>(text.data()), text.size(),
               mac.data(), &mac_size) != nullptr);
  std::array<unsigned char, 2 * EVP_MAX_MD_SIZE> encoded{};
  const int size =
      EVP_EncodeBlock(encoded.data(), mac.data(), static_cast<int>(mac_size));
  return "v1," + std::string(reinterpret_cast<const char*>(encoded.data()),
                             static_cast<std::size_t>(size));
}

Delivery delivery(std::string id, std::string webhook_id, std::string body) {
  Delivery out;
  out.id = std::move(id);
  out.webhook_id = std::move(webhook_id);
  out.body = std::make_shared<const std::string>(std::move(body));
  return out;
}

std::int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

EngineRun::EngineRun(EngineOptions options) : options_(std::move(options)) {
  auto engine = Engine::create(options_);
  INFO((engine.ok() ? "" : engine.error().detail));
  REQUIRE(engine.ok());
  engine_ = std::move(engine).value();
}

void EngineRun::endpoint(const std::string& webhook_id, const std::string& url,
                         const std::function<void(Endpoint&)>& change) {
  auto checked = check_url(url, options_.policy);
  INFO(url << ": " << (checked.ok() ? "" : checked.error().reason));
  REQUIRE(checked.ok());
  Endpoint endpoint;
  endpoint.webhook_id = webhook_id;
  endpoint.url = std::move(checked).value();
  auto key = SigningKey::parse(kSecretA);
  REQUIRE(key.ok());
  endpoint.keys.push_back({std::move(key).value(), std::nullopt});
  if (change) {
    change(endpoint);
  }
  REQUIRE(engine_->put_endpoint(std::move(endpoint)).ok());
}

void EngineRun::submit(Delivery delivery) {
  std::vector<Delivery> one;
  one.push_back(std::move(delivery));
  submit(std::move(one));
}

void EngineRun::submit(std::vector<Delivery> deliveries) {
  const std::size_t count = deliveries.size();
  const auto taken = engine_->submit(deliveries);
  REQUIRE(taken.ok());
  REQUIRE(taken.value() == count);
}

void EngineRun::turn(std::uint32_t max_wait_ms) {
  const std::size_t before = attempts_.size();
  const Status status = engine_->run_once(max_wait_ms, attempts_);
  INFO((status.ok() ? "" : status.error().reason));
  REQUIRE(status.ok());
  for (std::size_t i = before; i < attempts_.size(); ++i) {
    const DeliveryState state = attempts_[i].state;
    ended_ +=
        state != DeliveryState::kPending && state != DeliveryState::kParked;
  }
}

bool EngineRun::until(const std::function<bool()>& done,
                      std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience * kSlowdown;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    turn();
  }
  return true;
}

bool EngineRun::until_attempts(std::size_t count,
                               std::chrono::milliseconds patience) {
  return until([&] { return attempts_.size() >= count; }, patience);
}

void EngineRun::run_for(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    turn(10);
  }
}

std::vector<Attempt> EngineRun::attempts(const std::string& delivery_id) const {
  std::vector<Attempt> out;
  for (const Attempt& attempt : attempts_) {
    if (attempt.delivery_id == delivery_id) {
      out.push_back(attempt);
    }
  }
  return out;
}

Attempt EngineRun::outcome(Delivery delivery) {
  const std::string id = delivery.id;
  const std::size_t before = attempts(id).size();
  submit(std::move(delivery));
  REQUIRE(until([&] { return attempts(id).size() > before; }));
  return attempts(id)[before];
}

Url unchecked_url(const std::string& scheme, const std::string& host,
                  std::uint16_t port, const std::string& path) {
  Url url;
  url.scheme = scheme;
  url.host = host;
  url.port = port;
  url.literal = IpAddress::parse(host);
  const bool v6 = url.literal && url.literal->family == IpAddress::Family::kV6;
  url.text = scheme + "://" + (v6 ? "[" + host + "]" : host) + ":" +
             std::to_string(port) + path;
  return url;
}

}  // namespace webhooks::test
