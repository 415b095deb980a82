// Purpose: curl's and OpenSSL's handles as owners, and the one place where the
// options of a webhook POST are set.
// Ownership: each type owns its handle. A TrustStore is shared by all
// connections (OpenSSL counts references).
// Thread: loop only.
#pragma once

#include <curl/curl.h>
#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "webhooks/result.hpp"

namespace webhooks {

struct CurlMultiDelete {
  void operator()(CURLM* handle) const noexcept { curl_multi_cleanup(handle); }
};
using CurlMulti = std::unique_ptr<CURLM, CurlMultiDelete>;

struct CurlEasyDelete {
  void operator()(CURL* handle) const noexcept { curl_easy_cleanup(handle); }
};
using CurlEasy = std::unique_ptr<CURL, CurlEasyDelete>;

struct CurlListDelete {
  void operator()(curl_slist* list) const noexcept {
    curl_slist_free_all(list);
  }
};
using CurlList = std::unique_ptr<curl_slist, CurlListDelete>;

// A parsed URL that many transfers read at a time.
using CurlUrl = std::shared_ptr<CURLU>;
// Of a URL that check_url returned. Null: out of memory.
CurlUrl parse_url(const std::string& text);

// Where distributions keep the certificates of authorities.
std::span<const char* const> system_bundles() noexcept;

// The trusted certificates, parsed once and shared by every TLS connection:
// left to itself, libcurl parses the whole bundle for each connection as soon
// as a CA directory is compiled in (20 ms of the loop's time, as on Debian).
class TrustStore {
 public:
  // An empty path means the first of `bundles` that exists. Without one the
  // store is empty, and every TLS connection fails with that reason.
  // Error: `ca_file` (cannot be read, or holds no certificate).
  static Result<TrustStore> load(
      std::string path,
      std::span<const char* const> bundles = system_bundles());

  // Takes over a bundle that was replaced on disk; looks once a minute, and
  // once a second for a bundle while there is none. A replacement that cannot
  // be read leaves the old one in force.
  void refresh(std::int64_t now_us);

  // Gives a TLS context these certificates and our own rules on what is strong
  // enough: those of OpenSSL depend on the distribution and its configuration.
  bool configure(SSL_CTX* context) const noexcept;

 private:
  struct Delete {
    void operator()(X509_STORE* store) const noexcept {
      X509_STORE_free(store);
    }
  };
  using Store = std::unique_ptr<X509_STORE, Delete>;
  TrustStore() = default;
  Store store_;
  std::span<const char* const> bundles_;
  std::string path_;
  std::int64_t modified_ns_ = 0;
  std::int64_t looked_us_ = 0;
};

// What curl calls back; the pointers are given to the callbacks.
struct CurlCallbacks {
  curl_opensocket_callback open_socket = nullptr;
  curl_closesocket_callback close_socket = nullptr;
  curl_write_callback write_body = nullptr;
  curl_write_callback write_header = nullptr;
  curl_ssl_ctx_callback tls_context = nullptr;
  curl_prereq_callback request = nullptr;
  // For close_socket: a connection outlives the transfer that opened it.
  void* sockets = nullptr;
  void* transfer = nullptr;  // for all others, and as CURLOPT_PRIVATE
};

// Sets everything that is the same for every attempt. False: curl refused an
// option, and this handle must not be used.
bool set_fixed_options(CURL* easy, const CurlCallbacks& callbacks,
                       bool https_only, char* error_buffer);

// What differs from attempt to attempt. Everything must outlive the transfer:
// curl copies only `url`.
struct AttemptOptions {
  const char* url = nullptr;
  // The same, parsed; otherwise curl takes the URL apart and puts it together
  // again for every transfer. May be null.
  CURLU* parsed_url = nullptr;
  std::string_view body;
  curl_slist* headers = nullptr;
  curl_slist* resolve = nullptr;
  long timeout_ms = 0;
  long connect_timeout_ms = 0;
  bool fresh_connection = false;
};
bool set_attempt_options(CURL* easy, const AttemptOptions& options);

}  // namespace webhooks
