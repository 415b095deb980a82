#include "core/transfer.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "core/ascii.hpp"
#include "core/clock.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks {
namespace {

// Read even if less is kept: closing would cost the receiver and us a new TLS
// handshake. More than that is not worth its bytes.
constexpr std::size_t kBodyBytesRead = std::size_t{16} * 1024;
constexpr std::size_t kHeaderValueBytesMax = 200;
// For a body of more than 1 MiB curl asks for permission to send it, and waits
// a second for the answer. Well below that size we tell it not to.
constexpr std::size_t kExpectFrom = std::size_t{512} * 1024;
// Any result of the callbacks but the byte count makes curl stop.
constexpr std::size_t kAbort = 0;

std::string header_value(std::string_view line, std::size_t name_bytes) {
  const std::string_view value = trim(line.substr(name_bytes), " \t\r\n");
  return std::string(value.substr(0, kHeaderValueBytesMax));
}

std::optional<std::uint64_t> time_of(CURL* easy, CURLINFO info) {
  curl_off_t microseconds = 0;
  if (curl_easy_getinfo(easy, info, &microseconds) != CURLE_OK ||
      microseconds <= 0) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(microseconds);
}

// For CURLOPT_RESOLVE. The "+" makes an entry that ages, so that a name nobody
// uses any more goes away.
CurlList pin(const Url& url, const std::vector<IpAddress>& addresses) {
  std::string text = "+" + url.host + ":" + std::to_string(url.port);
  char separator = ':';
  for (const IpAddress& address : addresses) {
    const bool v6 = address.family == IpAddress::Family::kV6;
    text += std::exchange(separator, ',');
    text += v6 ? "[" + address.to_string() + "]" : address.to_string();
  }
  return CurlList(curl_slist_append(nullptr, text.c_str()));
}

}  // namespace

bool Transfer::open() {
  easy_.reset(curl_easy_init());
  CurlCallbacks callbacks;
  callbacks.open_socket = on_open_socket;
  callbacks.close_socket = EventLoop::on_close_socket;
  callbacks.write_body = on_body;
  callbacks.write_header = on_header;
  callbacks.request = on_request;
  callbacks.tls_context = on_tls_context;
  callbacks.transfer = this;
  callbacks.sockets = &settings_.dial.sockets;
  return easy_ &&
         set_fixed_options(easy(), callbacks, settings_.dial.https_only,
                           error_text_.data());
}

Transfer* Transfer::of(CURL* easy) noexcept {
  char* transfer = nullptr;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
  return reinterpret_cast<Transfer*>(transfer);
}

void Transfer::add_header(std::string_view name, std::string_view value) {
  header_starts_.push_back(header_text_.size());
  header_text_.append(name).append(value).push_back('\0');
}

void Transfer::build_headers(const TransferRequest& request) {
  header_text_.clear();
  header_starts_.clear();
  add_header("content-type: ", "application/json");
  // Not by CURLOPT_USERAGENT: curl would format it twice per transfer.
  add_header("user-agent: ", settings_.user_agent);
  add_header("webhook-id: ", request.delivery.id);
  add_header("webhook-timestamp: ", std::to_string(request.unix_seconds));
  add_header("webhook-signature: ", request.signature);
  if (body_->size() >= kExpectFrom) {
    add_header("expect:", "");
  }
  for (const auto& [name, value] : request.endpoint.headers) {
    // curl takes "name:" as a wish to drop the header and "name;" for empty.
    add_header(name, value.empty() ? ";" : ": ");
    header_text_.pop_back();
    header_text_.append(value).push_back('\0');
  }
  // From here on the text does not move.
  header_nodes_.resize(header_starts_.size());
  curl_slist* next = nullptr;
  for (std::size_t i = header_nodes_.size(); i-- > 0;) {
    header_nodes_[i] = {header_text_.data() + header_starts_[i], next};
    next = &header_nodes_[i];
  }
}

bool Transfer::prepare(const TransferRequest& request) {
  const Url& url = request.endpoint.url;
  body_ = request.delivery.body;
  signed_at_s_ = request.unix_seconds;
  started_us_ = request.started_us;
  resolved_us_ = request.resolved_us;
  launched_us_ = steady_now_us();
  error_text_[0] = '\0';
  answered_us_ = 0;
  dialled_ = sent_ = false;
  answer_ = {};
  facts_ = {};
  facts_.https = url.scheme == "https";
  name_ = url.literal ? std::string_view() : url.host;
  port_ = url.port;
  build_headers(request);
  CurlList resolve;
  if (request.addresses != nullptr) {
    resolve = pin(url, *request.addresses);
    if (!resolve) {
      return false;
    }
  }
  AttemptOptions options;
  options.url = url.text.c_str();
  options.parsed_url = request.parsed_url.get();
  options.body = *body_;
  options.headers = header_nodes_.data();
  options.resolve = resolve.get();
  options.timeout_ms = static_cast<long>(request.timeout_ms);
  options.connect_timeout_ms = static_cast<long>(request.connect_timeout_ms);
  options.fresh_connection = request.fresh_connection;
  const bool set = set_attempt_options(easy(), options);
  // The old ones may go only now that the handle no longer points to them.
  resolve_ = std::move(resolve);
  url_ = request.parsed_url;
  return set;
}

// Judges the address that is really dialled, whatever the lookup returned.
curl_socket_t Transfer::on_open_socket(void* data, curlsocktype /*purpose*/,
                                       struct curl_sockaddr* address) noexcept {
  auto* transfer = static_cast<Transfer*>(data);
  const DialPolicy& dial = transfer->settings_.dial;
  if (transfer->sent_) {
    transfer->facts_.sent_before = true;
    return CURL_SOCKET_BAD;
  }
  try {
    const auto ip = IpAddress::from_sockaddr(&address->addr);
    if (!ip || dial.addresses.judge(*ip, transfer->port_, transfer->name_)) {
      transfer->facts_.address_refused = true;
      return CURL_SOCKET_BAD;
    }
    const int descriptor = ::socket(
        address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    // curl's own count of connections leaves out those that fail in TLS.
    transfer->dialled_ = true;
    if (descriptor >= 0) {
      dial.sockets.opened(descriptor,
                          {std::hash<std::string>()(transfer->name_), *ip});
    }
    return descriptor;
  } catch (...) {  // out of memory
    return CURL_SOCKET_BAD;
  }
}

// Called before each request. When a kept connection is closed without an
// answer, curl sends the request again over another one and tells nobody. The
// receiver may have taken it, so that would be an attempt which is not on
// record.
int Transfer::on_request(void* data, char* /*remote_ip*/, char* /*local_ip*/,
                         int /*remote_port*/, int /*local_port*/) noexcept {
  auto* transfer = static_cast<Transfer*>(data);
  if (std::exchange(transfer->sent_, true)) {
    transfer->facts_.sent_before = true;
    return CURL_PREREQFUNC_ABORT;
  }
  return CURL_PREREQFUNC_OK;
}

CURLcode Transfer::on_tls_context(CURL* /*easy*/, void* context,
                                  void* data) noexcept {
  auto* transfer = static_cast<Transfer*>(data);
  // The connection is made. curl's own times do not show that if the handshake
  // then hangs.
  transfer->facts_.connected = true;
  return transfer->settings_.dial.trust.configure(
             static_cast<SSL_CTX*>(context))
             ? CURLE_OK
             : CURLE_SSL_CIPHER;
}

std::size_t Transfer::on_body(char* data, std::size_t size, std::size_t count,
                              void* argument) noexcept {
  auto* transfer = static_cast<Transfer*>(argument);
  Answer& answer = transfer->answer_;
  const std::size_t bytes = size * count;
  const std::size_t keep_max = transfer->settings_.body_bytes_max;
  try {
    if (answer.body.size() < keep_max) {
      answer.body.append(data, std::min(bytes, keep_max - answer.body.size()));
    }
  } catch (...) {
    transfer->facts_.body_capped = true;
    return kAbort;
  }
  answer.body_bytes += bytes;
  transfer->facts_.body_capped = answer.body_bytes > keep_max;
  return answer.body_bytes > std::max(keep_max, kBodyBytesRead) ? kAbort
                                                                : bytes;
}

std::size_t Transfer::on_header(char* data, std::size_t size, std::size_t count,
                                void* argument) noexcept {
  auto* transfer = static_cast<Transfer*>(argument);
  const std::size_t bytes = size * count;
  try {
    return transfer->take_header({data, bytes}) ? bytes : kAbort;
  } catch (...) {
    return kAbort;
  }
}

// An interim answer (1xx) is forgotten with the next status line.
bool Transfer::take_status_line(std::string_view line) {
  answer_.headers.clear();
  answer_.retry_after.clear();
  answer_.status = 0;
  const auto space = line.find(' ');
  if (space == std::string_view::npos) {
    return true;
  }
  for (const char c : line.substr(space + 1, 3)) {
    if (!is_digit(c)) {
      break;
    }
    answer_.status = answer_.status * 10 + (c - '0');
  }
  // curl accepts status lines that are not valid. After a protocol switch that
  // the request did not ask for, it would wait until the deadline.
  facts_.protocol_violation = answer_.status < 100 || answer_.status == 101;
  return !facts_.protocol_violation;
}

bool Transfer::take_header(std::string_view line) {
  if (answer_.first_byte_us == 0) {
    answer_.first_byte_us = steady_now_us();
  }
  answer_.header_bytes += line.size();
  if (answer_.header_bytes > settings_.header_bytes_max) {
    // Too many trailers come after the answer and change nothing in it.
    facts_.headers_too_large = !facts_.answered;
    return false;
  }
  if (facts_.answered) {
    return true;
  }
  if (starts_with_ignoring_case(line, "http/")) {
    return take_status_line(line);
  }
  if (line == "\r\n" || line == "\n") {
    facts_.answered = answer_.status >= 200;
    answered_us_ = facts_.answered ? steady_now_us() : 0;
    return true;
  }
  if (starts_with_ignoring_case(line, "retry-after:")) {
    answer_.retry_after = header_value(line, 12);
  }
  if (answer_.headers.size() + line.size() <= kResponseHeadersKeptMax) {
    answer_.headers.append(trim(line, "\r\n")).push_back('\n');
  }
  return true;
}

void Transfer::complete_facts(CURLcode code) {
  facts_.code = code;
  // Of several addresses one was refused and another answered.
  facts_.address_refused = facts_.address_refused && answer_.status == 0;
  curl_easy_getinfo(easy(), CURLINFO_RESPONSE_CODE, &facts_.status);
  curl_easy_getinfo(easy(), CURLINFO_OS_ERRNO, &facts_.os_error);
  facts_.connected = facts_.connected || sent_ ||
                     time_of(easy(), CURLINFO_CONNECT_TIME_T).has_value();
  facts_.tls_done = time_of(easy(), CURLINFO_APPCONNECT_TIME_T).has_value() ||
                    time_of(easy(), CURLINFO_PRETRANSFER_TIME_T).has_value();
  facts_.first_byte =
      answer_.header_bytes > 0 ||
      time_of(easy(), CURLINFO_STARTTRANSFER_TIME_T).has_value();
  facts_.curl_text = error_text_.data();
}

// curl counts from when it was given the handle; we from the attempt's start.
void Transfer::report_times(Attempt& attempt) const {
  const auto since_start = [this](std::int64_t at_us) {
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, at_us - started_us_));
  };
  const auto shifted = [&](CURLINFO info) {
    auto time = time_of(easy(), info);
    if (time) {
      *time += since_start(launched_us_);
    }
    return time;
  };
  if (resolved_us_ != 0) {
    attempt.dns_us = since_start(resolved_us_);
  }
  if (dialled_) {
    attempt.connect_us = shifted(CURLINFO_CONNECT_TIME_T);
    if (facts_.https) {
      attempt.tls_us = shifted(CURLINFO_APPCONNECT_TIME_T);
    }
  }
  if (answer_.first_byte_us != 0) {
    attempt.first_byte_us = since_start(answer_.first_byte_us);
  }
  attempt.total_us = since_start(steady_now_us());
}

std::optional<std::int64_t> Transfer::finish(CURLcode code, Attempt& attempt) {
  const bool refused = facts_.address_refused;
  complete_facts(code);
  Verdict verdict = judge_transfer(facts_);
  attempt.error = verdict.error;
  attempt.detail = std::move(verdict.detail);
  attempt.response_truncated = verdict.truncated;
  attempt.status =
      static_cast<std::uint16_t>(std::clamp(facts_.status, 0L, 999L));
  report_times(attempt);
  const char* ip = nullptr;
  curl_easy_getinfo(easy(), CURLINFO_PRIMARY_IP, &ip);
  if (ip != nullptr && !refused) {
    attempt.remote_ip = ip;
  }
  if (sent_) {
    attempt.signed_at_s = signed_at_s_;
  }
  attempt.response_headers = std::move(answer_.headers);
  attempt.response_body = std::move(answer_.body);
  body_.reset();
  if (answer_.status != 429 && answer_.status != 503) {
    return std::nullopt;
  }
  return parse_retry_after_ms(answer_.retry_after, wall_now_ms());
}

}  // namespace webhooks
