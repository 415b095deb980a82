// Purpose: one POST under way: its curl handle, its header lines, what the
// callbacks learn about the answer.
// Ownership: owns the easy handle and everything curl keeps pointers to while
// the transfer runs. Pooled: reset by prepare().
// Thread: loop only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/curl_errors.hpp"
#include "core/curl_handles.hpp"
#include "core/lane.hpp"
#include "webhooks/address_policy.hpp"

namespace webhooks {

class EngineLoop;

// What is the same for all transfers of an engine.
struct TransferSettings {
  std::string user_agent;
  bool https_only = true;
  std::size_t body_bytes_max = 0;
  std::size_t header_bytes_max = 0;
};

class Transfer {
 public:
  // Null when curl refuses the options. `settings` must outlive it.
  static std::unique_ptr<Transfer> create(EngineLoop& loop,
                                          const TransferSettings& settings);

  struct Plan {
    Item* item = nullptr;
    std::string signature;
    std::int64_t unix_seconds = 0;
    const std::vector<IpAddress>* addresses = nullptr;  // null: a literal
    std::uint32_t timeout_ms = 0;
    std::uint32_t connect_timeout_ms = 0;
  };
  bool prepare(const Plan& plan);

  // The facts of a finished transfer; call before the handle is used again.
  TransferFacts facts(CURLcode code);
  // Fills timings, address, status and body into `attempt`.
  void report(Attempt& attempt);
  std::optional<std::int64_t> retry_after_ms(std::int64_t now_ms) const;

  // curl counts how often it sent a request again because a kept connection
  // had died, and never starts over: from the sixth time in the life of a
  // handle it fails. Only a handle that dialled can have counted.
  bool reusable() const noexcept { return !dialled_; }

  // Lets go of what belongs to the delivery; the handle stays.
  void release() noexcept { body_.reset(); }

  CURL* easy() const noexcept { return easy_.get(); }
  Item* item() const noexcept { return item_; }
  std::size_t multi() const noexcept { return multi_; }
  static Transfer* of(CURL* easy) noexcept;
  // The TLS handshake begins: there is a connection, which curl's own times do
  // not tell when the handshake then hangs.
  void note_tls_begun() noexcept { tls_begun_ = true; }

 private:
  Transfer(EngineLoop& loop, const TransferSettings& settings)
      : loop_(loop), settings_(settings) {}

  static curl_socket_t on_open_socket(void* transfer, curlsocktype purpose,
                                      struct curl_sockaddr* address) noexcept;
  static std::size_t on_body(char* data, std::size_t size, std::size_t count,
                             void* transfer) noexcept;
  static std::size_t on_header(char* data, std::size_t size, std::size_t count,
                               void* transfer) noexcept;
  bool take_header(std::string_view line);
  bool take_status_line(std::string_view line);
  void build_headers(const Plan& plan);
  void add_header(std::string_view name, std::string_view value);

  EngineLoop& loop_;
  const TransferSettings& settings_;
  CurlEasy easy_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  Item* item_ = nullptr;
  std::size_t multi_ = 0;
  // curl only reads the header list: one buffer of our own for all lines, each
  // ended by a NUL, saves a dozen allocations.
  std::string header_text_;
  std::vector<std::size_t> header_starts_;
  std::vector<curl_slist> header_nodes_;
  CurlUrl url_;
  CurlList resolve_;
  std::shared_ptr<const std::string> body_;

  std::string response_body_;
  std::string content_type_;
  std::string retry_after_;
  std::int64_t launched_us_ = 0;
  std::int64_t first_byte_us_ = 0;  // by the loop's clock; 0: none yet
  std::size_t body_bytes_ = 0;
  std::size_t header_bytes_ = 0;
  long status_ = 0;
  bool https_ = false;
  bool tls_begun_ = false;
  bool dialled_ = false;  // this attempt opened a connection
  bool address_refused_ = false;
  bool headers_too_large_ = false;
  bool protocol_violation_ = false;
  bool body_capped_ = false;
  bool answered_ = false;
};

}  // namespace webhooks
