// Purpose: one POST under way: its curl handle, its header lines, and what the
// callbacks learn about the answer.
// Ownership: owns the easy handle and everything curl keeps pointers to while
// the transfer runs. Used again and again: prepare() starts over.
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
#include "core/event_loop.hpp"
#include "webhooks/address_policy.hpp"
#include "webhooks/delivery.hpp"

namespace webhooks {

// The address policy, the trusted certificates, and the watcher of sockets.
struct DialPolicy {
  const AddressPolicy& addresses;
  bool https_only;
  const TrustStore& trust;
  EventLoop& sockets;
};

// The same for all transfers of an engine; outlives them.
struct TransferSettings {
  DialPolicy dial;
  std::string user_agent;
  std::size_t body_bytes_max;
  std::size_t header_bytes_max;
};

// One POST. Its references must be valid until prepare() returns.
struct TransferRequest {
  const Endpoint& endpoint;
  const CurlUrl& parsed_url;  // of endpoint.url; may be null
  const Delivery& delivery;
  const std::vector<IpAddress>* addresses;  // null: the host is a literal
  std::string_view signature;
  std::int64_t unix_seconds;
  std::uint32_t timeout_ms;
  std::uint32_t connect_timeout_ms;
  bool fresh_connection;  // not over one that is kept
  // When the attempt began, and when its name was resolved (0: no name).
  std::int64_t started_us;
  std::int64_t resolved_us;
};

class Transfer {
 public:
  explicit Transfer(const TransferSettings& settings) : settings_(settings) {}
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // False: curl refused the options. Once in the life of a transfer.
  bool open();
  bool prepare(const TransferRequest& request);

  // Fills in the result: error, status, timings, address, body. Then releases
  // the delivery's body. Returns the delay that Retry-After asks for.
  std::optional<std::int64_t> finish(CURLcode code, Attempt& attempt);

  // When the answer's headers were complete; 0: not yet. From then on the
  // result of the attempt is known, even if the body breaks off.
  std::int64_t answered_us() const noexcept { return answered_us_; }

  // curl counts how often it wanted to send a request again, and never starts
  // over: from the sixth time in the life of a handle it fails.
  bool reusable() const noexcept { return !facts_.sent_before; }

  CURL* easy() const noexcept { return easy_.get(); }
  static Transfer* of(CURL* easy) noexcept;

 private:
  static curl_socket_t on_open_socket(void* transfer, curlsocktype purpose,
                                      struct curl_sockaddr* address) noexcept;
  static int on_request(void* transfer, char* remote_ip, char* local_ip,
                        int remote_port, int local_port) noexcept;
  static CURLcode on_tls_context(CURL* easy, void* context,
                                 void* transfer) noexcept;
  static std::size_t on_body(char* data, std::size_t size, std::size_t count,
                             void* transfer) noexcept;
  static std::size_t on_header(char* data, std::size_t size, std::size_t count,
                               void* transfer) noexcept;
  bool take_header(std::string_view line);
  bool take_status_line(std::string_view line);
  void build_headers(const TransferRequest& request);
  void add_header(std::string_view name, std::string_view value);
  void complete_facts(CURLcode code);
  void report_times(Attempt& attempt) const;

  // What the callbacks learn about the answer.
  struct Answer {
    std::string body;
    std::string headers;
    std::string retry_after;
    std::int64_t first_byte_us = 0;  // 0: none yet
    std::size_t body_bytes = 0;
    std::size_t header_bytes = 0;
    long status = 0;
  };

  const TransferSettings& settings_;
  CurlEasy easy_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  // curl only reads the header list: one buffer of our own for all lines, each
  // ended by a NUL, saves a dozen allocations.
  std::string header_text_;
  std::vector<std::size_t> header_starts_;
  std::vector<curl_slist> header_nodes_;
  CurlUrl url_;
  CurlList resolve_;
  std::shared_ptr<const std::string> body_;
  std::string name_;  // of the destination; empty: the URL has an address
  std::uint16_t port_ = 0;
  std::int64_t signed_at_s_ = 0;
  std::int64_t started_us_ = 0;
  std::int64_t resolved_us_ = 0;
  std::int64_t launched_us_ = 0;
  std::int64_t answered_us_ = 0;
  bool dialled_ = false;  // this attempt opened a connection
  bool sent_ = false;     // or began to send the request, at least
  Answer answer_;
  TransferFacts facts_;
};

}  // namespace webhooks
