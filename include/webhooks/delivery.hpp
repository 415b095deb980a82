// Purpose: plain data that goes into the engine and comes out of it.
// Ownership: values; a body is shared by the deliveries of one fan-out.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "webhooks/signature.hpp"
#include "webhooks/url.hpp"

namespace webhooks {

// A key and when it stops signing (Unix milliseconds, the end of a rotation's
// overlap; nullopt: never).
struct EndpointKey {
  SigningKey key;
  std::optional<std::int64_t> expires_at_ms;
};

// Where the deliveries of one webhook go. Already judged by check_url and
// check_headers; the engine judges the addresses again when it dials.
struct Endpoint {
  std::string webhook_id;
  Url url;
  std::vector<EndpointKey> keys;  // newest first
  std::vector<std::pair<std::string, std::string>> headers;
  std::uint32_t timeout_ms = 0;          // 0: the engine's default
  std::uint32_t connect_timeout_ms = 0;  // 0: the engine's default
  std::uint32_t in_flight_max = 0;       // 0: the engine's default
  std::uint32_t rate_per_s = 0;          // 0: the engine's default
};

struct Delivery {
  std::string id;
  std::string webhook_id;
  std::shared_ptr<const std::string> body;
  // How many attempts were made; the next one has the number attempts + 1.
  std::uint32_t attempts = 0;
  // The number of attempts from which the retry schedule counts: a redelivery
  // gets the whole schedule, and attempts go on counting.
  std::uint32_t schedule_from = 0;
  // The earliest time to send, in milliseconds of the engine's clock. 0: now.
  std::int64_t due_at_ms = 0;
  // The time of acceptance by the same clock. 0: now.
  std::int64_t accepted_at_ms = 0;
  // A test, a redelivery or a recovery: a full queue still takes it, and it
  // replaces a waiting delivery with the same id.
  bool manual = false;
  // False: one attempt, even if it fails.
  bool retry = true;
};

enum class DeliveryState : std::uint8_t {
  kDelivered,  // 2xx
  kPending,    // the engine tries again at next_at_ms
  kParked,     // left the engine; due at next_at_ms
  kFailed,     // the schedule is used up
  kCancelled,  // its webhook was deleted or is unknown
};
inline constexpr std::size_t kDeliveryStates = 5;

// Why an attempt failed. The names (error_name) are stable and documented for
// users; every CURLcode maps to one of them.
enum class ErrorClass : std::uint8_t {
  kNone,
  kHttpStatus,
  kRedirect,
  kGone,
  kDnsError,
  kDnsTimeout,
  kBlockedAddress,
  kConnectionRefused,
  kConnectionReset,
  kConnectionClosed,  // a kept connection, when the next request used it
  kNetworkUnreachable,
  kConnectTimeout,
  kTlsError,
  kTlsTimeout,
  kTimeout,
  kResponseTooLarge,
  kProtocolError,
  kCancelled,
  kUnknownWebhook,
  kInternal,
};
std::string_view error_name(ErrorClass error) noexcept;

// The result of one POST. With number 0 there was none: the delivery ended
// without it, or was parked because its lane has more than it can send.
struct Attempt {
  std::string delivery_id;
  std::string webhook_id;
  std::uint32_t number = 0;
  std::uint32_t schedule_from = 0;  // of its delivery, from now on
  DeliveryState state = DeliveryState::kFailed;
  std::uint16_t status = 0;  // 0: no answer
  ErrorClass error = ErrorClass::kNone;
  std::string detail;  // at most kDetailBytesMax bytes of UTF-8
  std::int64_t started_at_ms = 0;
  std::optional<std::int64_t> signed_at_s;  // nullopt: no request left
  // Microseconds from the start to the end of the phase; nullopt: not reached
  // or not needed (a reused connection).
  std::optional<std::uint64_t> dns_us;
  std::optional<std::uint64_t> connect_us;
  std::optional<std::uint64_t> tls_us;
  std::optional<std::uint64_t> first_byte_us;
  std::optional<std::uint64_t> total_us;
  std::string remote_ip;
  std::string response_headers;  // lines that end with \n, as received
  std::string response_body;
  bool response_truncated = false;
  std::optional<std::int64_t> next_at_ms;
  bool gone = false;
  bool retry = true;  // that of its delivery: false for a test
};
inline constexpr std::size_t kDetailBytesMax = 256;
// Lines of an answer's headers beyond this are left out of an attempt.
inline constexpr std::size_t kResponseHeadersKeptMax = 4'096;

// How much CPU time the loop spent on this webhook without a pause (empty: on
// several). It should be a few milliseconds at most.
struct SlowSlice {
  std::string webhook_id;
  std::uint64_t took_ms = 0;
};

}  // namespace webhooks
