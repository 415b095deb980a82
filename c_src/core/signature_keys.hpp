// Purpose: the keys of the Standard Webhooks scheme, from their text to what
// OpenSSL signs and verifies with.
// Ownership: the results own their OpenSSL objects, which OpenSSL cleanses when
// it frees them.
// Thread: any.
#pragma once

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <string_view>

#include "webhooks/result.hpp"
#include "webhooks/signature.hpp"

namespace webhooks {

inline constexpr std::string_view kSecretPrefix = "whsec_";
inline constexpr std::string_view kSigningPrefix = "whsk_";
inline constexpr std::string_view kPublicPrefix = "whpk_";

inline constexpr std::size_t kMacBytes = 32;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* pointer) const noexcept {
    Free(pointer);
  }
};
using MacContext = std::unique_ptr<EVP_MAC_CTX, Deleter<EVP_MAC_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>>;
using PublicOrPrivateKey = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

// What OpenSSL says about a failure tells a caller nothing he could act on.
Error crypto_error();
Error invalid_key(const char* why);

// What stands behind the prefix. Errors: `invalid_key`, `crypto`.
Result<MacContext> parse_secret(std::string_view base64);
Result<PublicOrPrivateKey> parse_signing_key(std::string_view base64);
Result<PublicOrPrivateKey> parse_public_key(std::string_view base64);

}  // namespace webhooks
