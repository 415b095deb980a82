// Purpose: Standard Webhooks signatures. v1 is HMAC-SHA256 over
// `id.timestamp.body` with a secret written `whsec_<base64>`; v1a is Ed25519
// with keys written `whsk_<base64 of seed||public>` and `whpk_<base64>`.
// Source: https://github.com/standard-webhooks/standard-webhooks (spec 1.0.0).
// Ownership: a SigningKey owns its secret, which is cleansed when it dies.
// Thread: a SigningKey or Signer is used by one thread at a time (it keeps a
// keyed MAC context); the free functions may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/result.hpp"

namespace webhooks {

// Bytes that are overwritten before their memory is given back. Move-only:
// a copy would be one more place to forget.
class SecretBytes {
 public:
  SecretBytes() = default;
  explicit SecretBytes(std::size_t size);
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  ~SecretBytes();

  std::span<std::uint8_t> bytes() noexcept { return {data_.get(), size_}; }
  std::span<const std::uint8_t> bytes() const noexcept {
    return {data_.get(), size_};
  }
  std::size_t size() const noexcept { return size_; }

 private:
  void wipe() noexcept;
  std::unique_ptr<std::uint8_t[]> data_;
  std::size_t size_ = 0;
};

// One key that signs: a `whsec_` secret (24 to 64 bytes) or a `whsk_` key.
class SigningKey {
 public:
  // Errors: `invalid_key` (prefix, base64, length, or a public half that does
  // not belong to the seed). Takes standard padded base64 only.
  static Result<SigningKey> parse(std::string_view encoded);

  SigningKey(SigningKey&&) noexcept;
  SigningKey& operator=(SigningKey&&) noexcept;
  ~SigningKey();

  // Appends `v1,<base64>` or `v1a,<base64>` to `out`.
  Status append_signature(std::string_view id, std::int64_t unix_seconds,
                          std::string_view body, std::string& out);

 private:
  struct Impl;
  explicit SigningKey(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

// Fetches the algorithms. Optional: the first signature does it otherwise, and
// then pays for it. False: OpenSSL has no HMAC or no SHA-256.
bool prepare_signing() noexcept;

// Signs with every key, newest first: the value of the `webhook-signature`
// header. Errors: `no_keys`, `too_many_keys` (more than 10), `invalid_id`
// (empty, over 255 bytes, or holding a '.', a space or a control character),
// `invalid_timestamp` (negative), `crypto` (OpenSSL refused).
inline constexpr std::size_t kSigningKeysMax = 10;
Result<std::string> sign(std::span<SigningKey> keys, std::string_view id,
                         std::int64_t unix_seconds, std::string_view body);

// Checks `header` against 1 to 10 `keys` (`whsec_` and `whpk_`, each as
// written). Any matching entry of the space-separated header will do; entries
// of unknown versions are passed over. Comparison takes constant time. The
// timestamp may be `tolerance_s` away from now in both directions; a negative
// tolerance counts as 0. Errors, in this order: `no_keys`, `too_many_keys`,
// `invalid_id`, `invalid_timestamp`, `invalid_header` (over 4096 bytes, or no
// entry that could be a signature), `timestamp_too_old`, `timestamp_too_new`,
// `invalid_key`, `no_match`; `crypto`.
inline constexpr std::size_t kSignatureHeaderBytesMax = 4096;
Status verify(std::span<const std::string_view> keys, std::string_view id,
              std::int64_t unix_seconds, std::string_view header,
              std::string_view body, std::int64_t now_unix_seconds,
              std::int64_t tolerance_s);

// 32 random bytes as `whsec_...`. Error: `crypto`.
Result<std::string> generate_secret();

struct KeyPair {
  std::string signing_key;  // whsk_...
  std::string public_key;   // whpk_...
};
Result<KeyPair> generate_keypair();

}  // namespace webhooks
