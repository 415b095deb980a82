#include "core/transfer.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "core/engine_loop.hpp"
#include "webhooks/retry_schedule.hpp"

namespace webhooks {
namespace {

// Read on for this much beyond what is kept: closing costs the receiver and us
// a new TLS handshake. After that the rest is not worth its bytes.
constexpr std::size_t kDiscardBytesMax = std::size_t{256} * 1024;
constexpr std::size_t kHeaderValueBytesMax = 200;
// For a body of more than 1 MiB curl asks, and waits a second, for permission
// to send it. Well below that we tell it not to.
constexpr std::size_t kExpectFrom = std::size_t{512} * 1024;
// A value of the callbacks that makes curl stop: anything but the byte count.
constexpr std::size_t kAbort = 0;

bool starts_with_nocase(std::string_view text, std::string_view prefix) {
  if (text.size() < prefix.size()) {
    return false;
  }
  return std::equal(
      prefix.begin(), prefix.end(), text.begin(), [](char a, char b) {
        return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b + 32) : b);
      });
}

std::string header_value(std::string_view line, std::size_t name_bytes) {
  std::string_view value = line.substr(name_bytes);
  const auto blank = [](char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
  };
  while (!value.empty() && blank(value.front())) {
    value.remove_prefix(1);
  }
  while (!value.empty() && blank(value.back())) {
    value.remove_suffix(1);
  }
  return std::string(value.substr(0, kHeaderValueBytesMax));
}

std::optional<std::uint64_t> time_of(CURL* easy, CURLINFO info) {
  curl_off_t microseconds = 0;
  if (curl_easy_getinfo(easy, info, &microseconds) != CURLE_OK) {
    return std::nullopt;
  }
  if (microseconds <= 0) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(microseconds);
}

}  // namespace

std::unique_ptr<Transfer> Transfer::create(EngineLoop& loop,
                                           const TransferSettings& settings) {
  std::unique_ptr<Transfer> transfer(new Transfer(loop, settings));
  transfer->easy_.reset(curl_easy_init());
  if (!transfer->easy_) {
    return nullptr;
  }
  CurlCallbacks callbacks;
  callbacks.open_socket = on_open_socket;
  callbacks.close_socket = EngineLoop::on_close_socket;
  callbacks.write_body = on_body;
  callbacks.write_header = on_header;
  callbacks.tls_context = EngineLoop::on_tls_context;
  callbacks.transfer = transfer.get();
  callbacks.loop = &loop;
  if (!set_fixed_options(transfer->easy(), callbacks, settings.https_only,
                         transfer->error_text_.data())) {
    return nullptr;
  }
  return transfer;
}

Transfer* Transfer::of(CURL* easy) noexcept {
  char* transfer = nullptr;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
  return reinterpret_cast<Transfer*>(transfer);
}

void Transfer::add_header(std::string_view name, std::string_view value) {
  header_starts_.push_back(header_text_.size());
  header_text_.append(name);
  header_text_.append(value);
  header_text_.push_back('\0');
}

void Transfer::build_headers(const Plan& plan) {
  header_text_.clear();
  header_starts_.clear();
  add_header("content-type: ", "application/json");
  // Not by CURLOPT_USERAGENT: curl would format it twice per transfer.
  add_header("user-agent: ", settings_.user_agent);
  add_header("webhook-id: ", item_->delivery.id);
  add_header("webhook-timestamp: ", std::to_string(plan.unix_seconds));
  add_header("webhook-signature: ", plan.signature);
  if (body_->size() >= kExpectFrom) {
    add_header("expect:", "");
  }
  for (const auto& header : item_->lane->endpoint.headers) {
    // curl takes "name:" as a wish to drop the header and "name;" for empty.
    add_header(header.first, header.second.empty() ? ";" : ": ");
    header_text_.pop_back();
    header_text_.append(header.second).push_back('\0');
  }
  // The text no longer moves.
  header_nodes_.resize(header_starts_.size());
  curl_slist* next = nullptr;
  for (std::size_t i = header_nodes_.size(); i-- > 0;) {
    header_nodes_[i].data = header_text_.data() + header_starts_[i];
    header_nodes_[i].next = next;
    next = &header_nodes_[i];
  }
}

bool Transfer::prepare(const Plan& plan) {
  item_ = plan.item;
  const Lane& lane = *item_->lane;
  multi_ = lane.multi;
  body_ = item_->delivery.body;
  https_ = lane.endpoint.url.scheme == "https";
  error_text_[0] = '\0';
  response_body_.clear();
  content_type_.clear();
  retry_after_.clear();
  body_bytes_ = header_bytes_ = 0;
  first_byte_us_ = 0;
  launched_us_ = EventLoop::now_us();
  status_ = 0;
  address_refused_ = headers_too_large_ = protocol_violation_ = false;
  body_capped_ = answered_ = tls_begun_ = dialled_ = false;

  build_headers(plan);
  CurlList resolve;
  if (plan.addresses != nullptr) {
    // The "+": an entry that ages, so that a name nobody uses goes away.
    const Url& url = lane.endpoint.url;
    std::string pin = "+" + url.host + ":" + std::to_string(url.port) + ":";
    for (std::size_t i = 0; i < plan.addresses->size(); ++i) {
      if (i != 0) {
        pin += ',';
      }
      const IpAddress& address = (*plan.addresses)[i];
      const bool v6 = address.family == IpAddress::Family::kV6;
      pin += v6 ? "[" + address.to_string() + "]" : address.to_string();
    }
    resolve.reset(curl_slist_append(nullptr, pin.c_str()));
    if (!resolve) {
      return false;
    }
  }
  AttemptOptions options;
  options.url = lane.endpoint.url.text.c_str();
  options.parsed_url = lane.parsed_url.get();
  options.body = *body_;
  options.headers = header_nodes_.data();
  options.resolve = resolve.get();
  options.timeout_ms = static_cast<long>(plan.timeout_ms);
  options.connect_timeout_ms = static_cast<long>(plan.connect_timeout_ms);
  const bool set = set_attempt_options(easy(), options);
  // The old ones may go only now that the handle no longer points to them.
  resolve_ = std::move(resolve);
  url_ = lane.parsed_url;
  return set;
}

// The address that is really dialled, whatever a name said before.
curl_socket_t Transfer::on_open_socket(void* data, curlsocktype /*purpose*/,
                                       struct curl_sockaddr* address) noexcept {
  auto* transfer = static_cast<Transfer*>(data);
  try {
    const auto ip = IpAddress::from_sockaddr(&address->addr);
    if (!ip || transfer->loop_.judge(*ip)) {
      transfer->address_refused_ = true;
      return CURL_SOCKET_BAD;
    }
  } catch (...) {
    return CURL_SOCKET_BAD;
  }
  const int descriptor = ::socket(
      address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  // curl's own count of connections leaves out those that fail in TLS.
  transfer->dialled_ = true;
  if (descriptor >= 0) {
    transfer->loop_.socket_opened(descriptor);
  }
  return descriptor;
}

std::size_t Transfer::on_body(char* data, std::size_t size, std::size_t count,
                              void* argument) noexcept {
  auto* transfer = static_cast<Transfer*>(argument);
  const std::size_t bytes = size * count;
  const std::size_t keep_max = transfer->settings_.body_bytes_max;
  const std::size_t kept = transfer->response_body_.size();
  try {
    if (kept < keep_max) {
      transfer->response_body_.append(data, std::min(bytes, keep_max - kept));
    }
  } catch (...) {
    transfer->body_capped_ = true;
    return kAbort;
  }
  transfer->body_bytes_ += bytes;
  if (transfer->body_bytes_ > keep_max) {
    transfer->body_capped_ = true;
  }
  if (transfer->body_bytes_ > keep_max + kDiscardBytesMax) {
    return kAbort;
  }
  return bytes;
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

bool Transfer::take_status_line(std::string_view line) {
  // Each interim answer (1xx) starts over; only the last one counts.
  content_type_.clear();
  retry_after_.clear();
  status_ = 0;
  const auto space = line.find(' ');
  if (space == std::string_view::npos) {
    return true;
  }
  for (const char c : line.substr(space + 1, 3)) {
    if (c < '0' || c > '9') {
      break;
    }
    status_ = status_ * 10 + (c - '0');
  }
  // curl would wait to the deadline for what comes after a protocol switch
  // that nobody asked for.
  protocol_violation_ = status_ == 101;
  return !protocol_violation_;
}

bool Transfer::take_header(std::string_view line) {
  if (first_byte_us_ == 0) {
    first_byte_us_ = EventLoop::now_us();
  }
  header_bytes_ += line.size();
  if (header_bytes_ > settings_.header_bytes_max) {
    // Trailers come after the answer: too many of them change nothing in it.
    headers_too_large_ = !answered_;
    return false;
  }
  if (answered_) {
    return true;
  }
  if (line.substr(0, 5) == "HTTP/") {
    return take_status_line(line);
  }
  if (starts_with_nocase(line, "content-type:")) {
    content_type_ = header_value(line, 13);
  } else if (starts_with_nocase(line, "retry-after:")) {
    retry_after_ = header_value(line, 12);
  } else if (line == "\r\n" || line == "\n") {
    answered_ = status_ >= 200;
  }
  return true;
}

TransferFacts Transfer::facts(CURLcode code) {
  TransferFacts facts;
  facts.code = code;
  facts.https = https_;
  facts.address_refused = address_refused_ && status_ == 0;
  facts.headers_too_large = headers_too_large_;
  facts.protocol_violation = protocol_violation_;
  facts.body_capped = body_capped_;
  facts.answered = answered_;
  curl_easy_getinfo(easy(), CURLINFO_RESPONSE_CODE, &facts.status);
  curl_easy_getinfo(easy(), CURLINFO_OS_ERRNO, &facts.os_error);
  facts.connected = !dialled_ || tls_begun_ ||
                    time_of(easy(), CURLINFO_CONNECT_TIME_T).has_value();
  facts.tls_done = time_of(easy(), CURLINFO_APPCONNECT_TIME_T).has_value() ||
                   time_of(easy(), CURLINFO_PRETRANSFER_TIME_T).has_value();
  facts.first_byte = header_bytes_ > 0 ||
                     time_of(easy(), CURLINFO_STARTTRANSFER_TIME_T).has_value();
  facts.curl_text = error_text_.data();
  return facts;
}

void Transfer::report(Attempt& attempt) {
  CURL* handle = easy();
  // curl counts from when it took the handle in; we from the attempt's start.
  const auto since_start = [this](std::int64_t at_us) {
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, at_us - item_->started_us));
  };
  const std::uint64_t before_curl = since_start(launched_us_);
  const auto shifted = [before_curl](std::optional<std::uint64_t> time) {
    return time ? std::optional<std::uint64_t>(*time + before_curl) : time;
  };
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  attempt.status = static_cast<std::uint16_t>(std::clamp(status, 0L, 999L));
  if (item_->resolved_us != 0) {
    attempt.dns_us = since_start(item_->resolved_us);
  }
  if (dialled_) {
    attempt.connect_us = shifted(time_of(handle, CURLINFO_CONNECT_TIME_T));
    if (https_) {
      attempt.tls_us = shifted(time_of(handle, CURLINFO_APPCONNECT_TIME_T));
    }
  }
  if (first_byte_us_ != 0) {
    attempt.first_byte_us = since_start(first_byte_us_);
  }
  attempt.total_us = since_start(EventLoop::now_us());
  const char* ip = nullptr;
  curl_easy_getinfo(handle, CURLINFO_PRIMARY_IP, &ip);
  if (ip != nullptr && !address_refused_) {
    attempt.remote_ip = ip;
  }
  attempt.response_content_type = clean_detail(content_type_);
  attempt.response_body = std::move(response_body_);
}

std::optional<std::int64_t> Transfer::retry_after_ms(
    std::int64_t now_ms) const {
  if (status_ != 429 && status_ != 503) {
    return std::nullopt;
  }
  return parse_retry_after_ms(retry_after_, now_ms);
}

}  // namespace webhooks
