// Purpose: reads, makes and cleanses keys (signature_keys.hpp, signature.hpp).
// Ownership: every buffer of ours that held a secret is SecretBytes. The
// fetched algorithm lives as long as the process: freeing it from a static
// destructor would race with threads that still sign while the VM exits.
// Thread: any.
#include "core/signature_keys.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "core/base64.hpp"

namespace webhooks {
namespace {

constexpr std::size_t kSecretBytesMin = 24;
constexpr std::size_t kSecretBytesMax = 64;
constexpr std::size_t kSecretBytesMade = 32;
constexpr std::size_t kSeedBytes = 32;
constexpr std::size_t kPublicBytes = 32;

// A context with HMAC-SHA256 chosen and a key that signs nothing (a context
// without one cannot be copied in every OpenSSL). Fetching the algorithm and
// its digest takes longer than a short HMAC does, copying this does not. Made
// once and only read afterwards; a failed attempt may be repeated.
const EVP_MAC_CTX* hmac_template() noexcept {
  static std::atomic<EVP_MAC_CTX*> made{nullptr};
  if (EVP_MAC_CTX* ready = made.load(std::memory_order_acquire)) {
    return ready;
  }
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  if (mac == nullptr) {
    return nullptr;
  }
  MacContext context(EVP_MAC_CTX_new(mac));
  EVP_MAC_free(mac);  // the context holds its own reference
  std::string digest = "SHA256";
  constexpr std::array<unsigned char, kMacBytes> kNoKey{};
  const std::array<OSSL_PARAM, 2> parameters = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest.data(),
                                       digest.size()),
      OSSL_PARAM_construct_end()};
  if (!context || EVP_MAC_init(context.get(), kNoKey.data(), kNoKey.size(),
                               parameters.data()) != 1) {
    return nullptr;
  }
  EVP_MAC_CTX* expected = nullptr;
  if (made.compare_exchange_strong(expected, context.get())) {
    return context.release();
  }
  return expected;  // another thread was first; ours is freed
}

MacContext keyed_mac(std::span<const std::uint8_t> secret) noexcept {
  const EVP_MAC_CTX* blank = hmac_template();
  if (blank == nullptr) {
    return nullptr;
  }
  MacContext context(EVP_MAC_CTX_dup(blank));
  if (!context ||
      EVP_MAC_init(context.get(), secret.data(), secret.size(), nullptr) != 1) {
    return nullptr;
  }
  return context;
}

// The bytes behind a prefix. nullopt: no base64, or not `least` to `most`.
std::optional<SecretBytes> decode_key(std::string_view text, std::size_t least,
                                      std::size_t most) {
  const auto size = base64_decoded_size(text);
  if (!size || *size < least || *size > most) {
    return std::nullopt;
  }
  SecretBytes bytes(*size);
  if (!base64_decode(text, bytes.bytes())) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace

SecretBytes::SecretBytes(std::size_t size)
    : data_(std::make_unique<std::uint8_t[]>(size)), size_(size) {}
SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    wipe();
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}
SecretBytes::~SecretBytes() { wipe(); }
void SecretBytes::wipe() noexcept {
  if (data_) {
    OPENSSL_cleanse(data_.get(), size_);
  }
}

Error crypto_error() { return Error{"crypto", "OpenSSL refused"}; }
Error invalid_key(const char* why) { return Error{"invalid_key", why}; }

Result<MacContext> parse_secret(std::string_view base64) {
  const auto secret = decode_key(base64, kSecretBytesMin, kSecretBytesMax);
  if (!secret) {
    return invalid_key("whsec_ takes base64 of 24 to 64 bytes");
  }
  MacContext context = keyed_mac(secret->bytes());
  if (!context) {
    return crypto_error();
  }
  return context;
}

// The seed alone determines the public half; a pair whose halves disagree
// would sign what its owner cannot verify.
Result<PublicOrPrivateKey> parse_signing_key(std::string_view base64) {
  constexpr std::size_t kBytes = kSeedBytes + kPublicBytes;
  const auto pair = decode_key(base64, kBytes, kBytes);
  if (!pair) {
    return invalid_key("whsk_ takes base64 of seed and public key");
  }
  const auto seed = pair->bytes().first(kSeedBytes);
  PublicOrPrivateKey key(EVP_PKEY_new_raw_private_key_ex(
      nullptr, "ED25519", nullptr, seed.data(), seed.size()));
  std::array<std::uint8_t, kPublicBytes> derived;
  std::size_t size = derived.size();
  if (!key ||
      EVP_PKEY_get_raw_public_key(key.get(), derived.data(), &size) != 1) {
    return crypto_error();
  }
  if (!std::ranges::equal(derived, pair->bytes().subspan(kSeedBytes))) {
    return invalid_key("the public half does not belong to the seed");
  }
  return key;
}

Result<PublicOrPrivateKey> parse_public_key(std::string_view base64) {
  const auto bytes = decode_key(base64, kPublicBytes, kPublicBytes);
  if (!bytes) {
    return invalid_key("whpk_ takes base64 of 32 bytes");
  }
  PublicOrPrivateKey key(EVP_PKEY_new_raw_public_key_ex(
      nullptr, "ED25519", nullptr, bytes->bytes().data(), bytes->size()));
  if (!key) {
    return invalid_key("no Ed25519 public key");
  }
  return key;
}

bool prepare_signing() noexcept { return hmac_template() != nullptr; }

Result<std::string> generate_secret() {
  SecretBytes secret(kSecretBytesMade);
  if (RAND_priv_bytes(secret.bytes().data(), static_cast<int>(secret.size())) !=
      1) {
    return crypto_error();
  }
  std::string text(kSecretPrefix);
  base64_append(secret.bytes(), text);
  return text;
}

Result<KeyPair> generate_keypair() {
  SecretBytes pair(kSeedBytes + kPublicBytes);
  const auto seed = pair.bytes().first(kSeedBytes);
  const auto public_half = pair.bytes().subspan(kSeedBytes);
  if (RAND_priv_bytes(seed.data(), static_cast<int>(seed.size())) != 1) {
    return crypto_error();
  }
  const PublicOrPrivateKey key(EVP_PKEY_new_raw_private_key_ex(
      nullptr, "ED25519", nullptr, seed.data(), seed.size()));
  std::size_t size = public_half.size();
  if (!key ||
      EVP_PKEY_get_raw_public_key(key.get(), public_half.data(), &size) != 1) {
    return crypto_error();
  }
  KeyPair keys{std::string(kSigningPrefix), std::string(kPublicPrefix)};
  base64_append(pair.bytes(), keys.signing_key);
  base64_append(public_half, keys.public_key);
  return keys;
}

}  // namespace webhooks
