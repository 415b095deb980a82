#include "core/curl_handles.hpp"

#include <openssl/err.h>

#include <array>
#include <cstdint>

#include "core/files.hpp"

namespace webhooks {
namespace {

constexpr std::int64_t kLookAgainUs = 60'000'000;
constexpr std::int64_t kLookForBundleUs = 1'000'000;
constexpr long kConnectionAgeMaxS = 60;  // since it was last used
// At level 2 a key shorter than RSA's 2048 bits and a SHA-1 signature are
// refused.
constexpr int kSecurityLevel = 2;
constexpr const char* kCiphers = "ECDHE+HIGH";  // of TLS 1.2
// No finite fields: the receiver picks the group, and a handshake with a large
// one holds the loop for half a second.
constexpr const char* kGroups = "X25519:P-256:P-384:P-521";
// A server sends a ticket or two after the handshake, and renews its keys after
// gigabytes.
constexpr std::intptr_t kMaintenanceMessagesMax = 32;
// Both are allocated for every transfer (the second one only for TLS). Answers
// are short, and malloc caches blocks up to this size.
constexpr long kReceiveBufferBytes = 1024;
constexpr long kSendBufferBytes = 16L * 1024;  // the least that curl takes

constexpr std::array<const char*, 5> kSystemBundles = {
    "/etc/ssl/certs/ca-certificates.crt",  // Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",    // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",              // openSUSE
    "/etc/ssl/cert.pem",                   // Alpine, BSD
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
};

std::string existing(std::span<const char* const> bundles) {
  for (const char* path : bundles) {
    if (modification_ns(path) != 0) {
      return path;
    }
  }
  return {};
}

template <class Value>
bool set(CURL* easy, CURLoption option, Value value) {
  return curl_easy_setopt(easy, option, value) == CURLE_OK;
}

bool set_limits_and_callbacks(CURL* easy, const CurlCallbacks& callbacks,
                              char* error_buffer) {
  return set(easy, CURLOPT_ERRORBUFFER, error_buffer) &&
         set(easy, CURLOPT_PRIVATE, callbacks.transfer) &&
         set(easy, CURLOPT_OPENSOCKETFUNCTION, callbacks.open_socket) &&
         set(easy, CURLOPT_OPENSOCKETDATA, callbacks.transfer) &&
         set(easy, CURLOPT_CLOSESOCKETFUNCTION, callbacks.close_socket) &&
         set(easy, CURLOPT_CLOSESOCKETDATA, callbacks.sockets) &&
         set(easy, CURLOPT_WRITEFUNCTION, callbacks.write_body) &&
         set(easy, CURLOPT_WRITEDATA, callbacks.transfer) &&
         set(easy, CURLOPT_HEADERFUNCTION, callbacks.write_header) &&
         set(easy, CURLOPT_HEADERDATA, callbacks.transfer) &&
         set(easy, CURLOPT_PREREQFUNCTION, callbacks.request) &&
         set(easy, CURLOPT_PREREQDATA, callbacks.transfer) &&
         set(easy, CURLOPT_NOPROGRESS, 1L) &&
         // The VM ignores SIGPIPE; otherwise curl would change the
         // process-wide disposition around every call.
         set(easy, CURLOPT_NOSIGNAL, 1L) &&
         // curl should never look up a name itself. If it does, nobody waits
         // for its thread.
         set(easy, CURLOPT_QUICK_EXIT, 1L) &&
         set(easy, CURLOPT_BUFFERSIZE, kReceiveBufferBytes) &&
         set(easy, CURLOPT_UPLOAD_BUFFERSIZE, kSendBufferBytes) &&
         set(easy, CURLOPT_MAXAGE_CONN, kConnectionAgeMaxS) &&
         set(easy, CURLOPT_TCP_NODELAY, 1L);
}

// Nothing that a stranger's URL or answer could turn against us.
bool set_isolation(CURL* easy, bool https_only) {
  const char* protocols = https_only ? "https" : "http,https";
  return set(easy, CURLOPT_PROTOCOLS_STR, protocols) &&
         set(easy, CURLOPT_REDIR_PROTOCOLS_STR, protocols) &&
         set(easy, CURLOPT_FOLLOWLOCATION, 0L) &&
         set(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L) &&
         // Empty, not null: null would take the proxy from the environment,
         // and with it the address check would only ever see the proxy.
         set(easy, CURLOPT_PROXY, "") && set(easy, CURLOPT_NOPROXY, "*") &&
         // An answer that is inflated could be a thousand times as long as what
         // came over the wire. curl asks for no encoding, but would inflate
         // what comes as `Transfer-Encoding: gzip` all the same. This leaves
         // chunks to be decoded, unlike CURLOPT_HTTP_TRANSFER_DECODING.
         set(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L) &&
         set(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED)) &&
         set(easy, CURLOPT_HTTP_VERSION,
             static_cast<long>(CURL_HTTP_VERSION_1_1)) &&
         set(easy, CURLOPT_HTTP09_ALLOWED, 0L);
}

bool set_tls(CURL* easy, const CurlCallbacks& callbacks) {
  const char* none = nullptr;
  return set(easy, CURLOPT_SSL_VERIFYPEER, 1L) &&
         set(easy, CURLOPT_SSL_VERIFYHOST, 2L) &&
         set(easy, CURLOPT_SSLVERSION,
             static_cast<long>(CURL_SSLVERSION_TLSv1_2)) &&
         // The trusted certificates come with the TLS context, see TrustStore.
         set(easy, CURLOPT_CAINFO, none) && set(easy, CURLOPT_CAPATH, none) &&
         set(easy, CURLOPT_SSL_CTX_FUNCTION, callbacks.tls_context) &&
         set(easy, CURLOPT_SSL_CTX_DATA, callbacks.transfer);
}

// Of the counter that each SSL has.
int maintenance_index() noexcept {
  static const int index =
      SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

// A peer may ask for new keys, send tickets and hello requests as often as it
// likes, and OpenSSL handles all that have arrived within one read: an endless
// stream of them keeps the loop for as long as it lasts. Neither a limit on
// bytes nor one on time is looked at meanwhile, so the end of the stream is
// feigned.
void on_tls_message(int written, int /*version*/, int content_type,
                    const void* message, std::size_t size, SSL* ssl,
                    void* /*argument*/) {
  if (written != 0 || content_type != SSL3_RT_HANDSHAKE || size == 0) {
    return;
  }
  const auto type = *static_cast<const unsigned char*>(message);
  if (type != SSL3_MT_HELLO_REQUEST && type != SSL3_MT_NEWSESSION_TICKET &&
      type != SSL3_MT_KEY_UPDATE) {
    return;
  }
  const auto count = reinterpret_cast<std::intptr_t>(
                         SSL_get_ex_data(ssl, maintenance_index())) +
                     1;
  SSL_set_ex_data(ssl, maintenance_index(), reinterpret_cast<void*>(count));
  if (count > kMaintenanceMessagesMax) {
    SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
  }
}

}  // namespace

std::span<const char* const> system_bundles() noexcept {
  return kSystemBundles;
}

Result<TrustStore> TrustStore::load(std::string path,
                                    std::span<const char* const> bundles) {
  const bool system = path.empty();
  TrustStore trust;
  if (system) {
    trust.bundles_ = bundles;
    path = existing(bundles);
  }
  trust.store_.reset(X509_STORE_new());
  if (!trust.store_) {
    return Error{"system_limit", "no memory for certificates"};
  }
  trust.path_ = std::move(path);
  if (trust.path_.empty()) {
    return trust;
  }
  trust.modified_ns_ = modification_ns(trust.path_);
  const int loaded =
      X509_STORE_load_file(trust.store_.get(), trust.path_.c_str());
  ERR_clear_error();
  if (loaded != 1 && !system) {
    return Error{"ca_file", "no certificate could be read from the file"};
  }
  return trust;
}

void TrustStore::refresh(std::int64_t now_us) {
  const std::int64_t pause_us = path_.empty() ? kLookForBundleUs : kLookAgainUs;
  if (now_us - looked_us_ < pause_us) {
    return;
  }
  looked_us_ = now_us;
  if (path_.empty()) {
    path_ = existing(bundles_);
  }
  const std::int64_t modified = modification_ns(path_);
  if (modified == 0 || modified == modified_ns_) {
    return;
  }
  Store store(X509_STORE_new());
  if (store && X509_STORE_load_file(store.get(), path_.c_str()) == 1) {
    store_ = std::move(store);
    modified_ns_ = modified;
  }
  ERR_clear_error();
}

bool TrustStore::configure(SSL_CTX* context) const noexcept {
  SSL_CTX_set1_cert_store(context, store_.get());
  // SSLKEYLOGFILE in the environment must not write session keys to disk.
  SSL_CTX_set_keylog_callback(context, nullptr);
  SSL_CTX_set_security_level(context, kSecurityLevel);
  SSL_CTX_set_msg_callback(context, on_tls_message);
  return SSL_CTX_set_cipher_list(context, kCiphers) == 1 &&
         SSL_CTX_set1_groups_list(context, kGroups) == 1;
}

CurlUrl parse_url(const std::string& text) {
  CurlUrl url(curl_url(), curl_url_cleanup);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(),
                           CURLU_DISALLOW_USER) != CURLUE_OK) {
    return nullptr;
  }
  return url;
}

bool set_fixed_options(CURL* easy, const CurlCallbacks& callbacks,
                       bool https_only, char* error_buffer) {
  return set(easy, CURLOPT_POST, 1L) &&
         set_limits_and_callbacks(easy, callbacks, error_buffer) &&
         set_isolation(easy, https_only) && set_tls(easy, callbacks);
}

bool set_attempt_options(CURL* easy, const AttemptOptions& options) {
  return set(easy, CURLOPT_URL, options.url) &&
         set(easy, CURLOPT_CURLU, options.parsed_url) &&
         set(easy, CURLOPT_POSTFIELDSIZE_LARGE,
             static_cast<curl_off_t>(options.body.size())) &&
         set(easy, CURLOPT_POSTFIELDS, options.body.data()) &&
         set(easy, CURLOPT_HTTPHEADER, options.headers) &&
         set(easy, CURLOPT_RESOLVE, options.resolve) &&
         set(easy, CURLOPT_TIMEOUT_MS, options.timeout_ms) &&
         set(easy, CURLOPT_CONNECTTIMEOUT_MS, options.connect_timeout_ms) &&
         set(easy, CURLOPT_FRESH_CONNECT, options.fresh_connection ? 1L : 0L);
}

}  // namespace webhooks
