// Purpose: Standard Webhooks signatures, version v1: HMAC-SHA256 over
// `id.timestamp.body` with a secret written `whsec_<base64>`.
// Source: https://github.com/standard-webhooks/standard-webhooks (spec 1.0.0).
// Ownership: a SigningKey owns its OpenSSL context. OpenSSL cleanses the
// context when it frees it.
// Thread: one thread at a time uses a SigningKey. Any thread may call the free
// functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "webhooks/result.hpp"

struct evp_mac_ctx_st;  // OpenSSL's EVP_MAC_CTX

namespace webhooks {

// 1 to 255 visible ASCII characters and no dot.
inline constexpr std::size_t kMessageIdBytesMax = 255;
bool is_message_id(std::string_view id) noexcept;

// A secret of 24 to 64 bytes, ready to sign.
class SigningKey {
 public:
  // Takes `whsec_` and standard padded base64 only. The receivers' libraries
  // disagree on url-safe and unpadded text. Errors: `invalid_key`, `crypto`.
  static Result<SigningKey> parse(std::string_view encoded);

  // Appends `v1,<base64>` to `out`. Errors: `invalid_id` (no message id),
  // `invalid_timestamp` (negative), `crypto` (OpenSSL failed).
  Status append_signature(std::string_view id, std::int64_t unix_seconds,
                          std::string_view body, std::string& out);

 private:
  struct ContextFree {
    void operator()(evp_mac_ctx_st* context) const noexcept;
  };
  using Context = std::unique_ptr<evp_mac_ctx_st, ContextFree>;

  explicit SigningKey(Context context) noexcept;

  Context context_;
};

// Fetches the algorithms. Without this call the first signature fetches them
// and takes longer. Returns false if OpenSSL has no HMAC or no SHA-256.
bool prepare_signing() noexcept;

inline constexpr std::size_t kSigningKeysMax = 10;
inline constexpr std::size_t kSignatureHeaderBytesMax = 4096;

// Signs with every key, in the order of `keys`. Returns the value of the
// `webhook-signature` header. Errors: `no_keys`, `too_many_keys` (more than
// 10), and those of SigningKey.
Result<std::string> sign(std::span<const std::string_view> keys,
                         std::string_view id, std::int64_t unix_seconds,
                         std::string_view body);

// Checks `header` against 1 to 10 `keys`. One matching entry of the
// space-separated header is enough. Entries of other versions are skipped. The
// comparison takes constant time. The timestamp may differ from
// `now_unix_seconds` by `tolerance_s` in both directions; a negative tolerance
// counts as 0. Errors, in this order: `invalid_id`, `invalid_timestamp`,
// `invalid_header` (longer than 4096 bytes, or without an entry that could be a
// signature), `timestamp_too_old`, `timestamp_too_new`, those of sign,
// `no_match`.
Status verify(std::span<const std::string_view> keys, std::string_view id,
              std::int64_t unix_seconds, std::string_view header,
              std::string_view body, std::int64_t now_unix_seconds,
              std::int64_t tolerance_s);

// Returns 32 random bytes as `whsec_...`. Error: `crypto`.
Result<std::string> generate_secret();

}  // namespace webhooks
