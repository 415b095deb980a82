#include "core/curl_errors.hpp"

#include <array>
#include <cerrno>

namespace webhooks {
namespace {

ErrorClass class_of_os_error(long error, ErrorClass otherwise) {
  switch (error) {
    case ECONNREFUSED:
      return ErrorClass::kConnectionRefused;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
      return ErrorClass::kConnectionReset;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
    case EACCES:
    case EPERM:
      return ErrorClass::kNetworkUnreachable;
    case ETIMEDOUT:
      return ErrorClass::kConnectTimeout;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
      return ErrorClass::kInternal;
    default:
      return otherwise;
  }
}

Verdict timed_out(const TransferFacts& facts) {
  if (!facts.connected) {
    return {ErrorClass::kConnectTimeout, "no connection in time", false};
  }
  if (facts.https && !facts.tls_done) {
    return {ErrorClass::kTlsTimeout, "the TLS handshake did not end in time",
            false};
  }
  if (!facts.first_byte) {
    return {ErrorClass::kTimeout, "no answer in time", false};
  }
  return {ErrorClass::kTimeout, "the answer did not end in time", false};
}

ErrorClass class_of_code(const TransferFacts& facts) {
  switch (facts.code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return ErrorClass::kDnsError;
    case CURLE_COULDNT_CONNECT:
      return class_of_os_error(facts.os_error, ErrorClass::kConnectionRefused);
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_FAIL_REWIND:
      return ErrorClass::kConnectionReset;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_USE_SSL_FAILED:
      return ErrorClass::kTlsError;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_CHUNK_FAILED:
      return ErrorClass::kProtocolError;
    case CURLE_FILESIZE_EXCEEDED:
      return ErrorClass::kResponseTooLarge;
    default:
      return ErrorClass::kInternal;
  }
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// libcurl's own limits on headers answer with codes that otherwise mean
// something else: 56 (receive error) and, for one endless line, 27 (memory).
bool is_header_overflow(const TransferFacts& facts) {
  if (facts.headers_too_large) {
    return true;
  }
  if (contains(facts.curl_text, "Too large response header")) {
    return true;
  }
#if LIBCURL_VERSION_NUM >= 0x080600
  if (facts.code == CURLE_TOO_LARGE) return true;
#endif
  return facts.code == CURLE_OUT_OF_MEMORY && facts.first_byte &&
         !facts.answered;
}

// With TLS 1.3 the handshake is over for us before the receiver has judged it:
// its alert (it wants a client certificate, say) arrives as a failed read.
bool is_late_tls_alert(const TransferFacts& facts) {
  const bool io =
      facts.code == CURLE_RECV_ERROR || facts.code == CURLE_SEND_ERROR;
  return io && facts.https && contains(facts.curl_text, "SSL routines");
}

Verdict judge_status(const TransferFacts& facts, bool truncated) {
  const long status = facts.status;
  if (status >= 200 && status <= 299) {
    return {ErrorClass::kNone, {}, truncated};
  }
  if (status == 410) {
    return {ErrorClass::kGone, "the receiver wants no more", truncated};
  }
  if (status >= 300 && status <= 399) {
    return {ErrorClass::kRedirect, "redirects are not followed", truncated};
  }
  return {ErrorClass::kHttpStatus, {}, truncated};
}

}  // namespace

std::string_view error_name(ErrorClass error) noexcept {
  static constexpr std::array<std::string_view, 20> kNames = {
      "none",
      "http_status",
      "redirect",
      "gone",
      "dns_error",
      "dns_timeout",
      "blocked_address",
      "connection_refused",
      "connection_reset",
      "connection_closed",
      "network_unreachable",
      "connect_timeout",
      "tls_error",
      "tls_timeout",
      "timeout",
      "response_too_large",
      "protocol_error",
      "cancelled",
      "unknown_webhook",
      "internal",
  };
  static_assert(static_cast<std::size_t>(ErrorClass::kInternal) + 1 ==
                kNames.size());
  const auto index = static_cast<std::size_t>(error);
  return index < kNames.size() ? kNames[index] : kNames.back();
}

std::string clean_detail(std::string_view text) {
  std::string clean;
  for (const char c : text.substr(0, kDetailBytesMax)) {
    clean.push_back(c >= ' ' && c <= '~' ? c : '?');
  }
  return clean;
}

Verdict judge_transfer(const TransferFacts& facts) {
  if (facts.address_refused) {
    // The same words for every kind of address: naming the kind would tell a
    // stranger about our network.
    return {ErrorClass::kBlockedAddress,
            "the destination has an address that may not be dialled", false};
  }
  if (facts.sent_before) {
    return {ErrorClass::kConnectionClosed,
            "the kept connection was closed before an answer came", false};
  }
  if (facts.protocol_violation) {
    return {ErrorClass::kProtocolError, "the answer is not one to a POST",
            false};
  }
  if (facts.code == CURLE_OK && facts.answered) {
    return judge_status(facts, facts.body_capped);
  }
  // Once the status has arrived, it counts, even if the body breaks off:
  // retrying a 200 would deliver twice.
  if (facts.answered) {
    return judge_status(facts, true);
  }
  if (is_header_overflow(facts)) {
    return {ErrorClass::kResponseTooLarge, "the response headers are too large",
            false};
  }
  if (facts.code == CURLE_OPERATION_TIMEDOUT) {
    return timed_out(facts);
  }
  // curl takes the end of the stream for the end of the headers.
  if (facts.code == CURLE_OK) {
    return {ErrorClass::kConnectionReset, "closed within the response headers",
            false};
  }
  std::string_view text = facts.curl_text;
  // If a connection is reset right after it was made, curl's first complaint is
  // that it cannot read the addresses. That text is true, but helps nobody.
  const bool no_help =
      contains(text, "getpeername()") || contains(text, "getsockname()");
  if (text.empty() || no_help) {
    text = curl_easy_strerror(facts.code);
  }
  const ErrorClass error =
      is_late_tls_alert(facts) ? ErrorClass::kTlsError : class_of_code(facts);
  return {error, clean_detail(text), false};
}

}  // namespace webhooks
