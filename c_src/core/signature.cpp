// Purpose: signs and verifies (signature.hpp), reads and makes secrets.
// Ownership: every buffer that holds a secret is a SecretBytes, which cleanses
// itself. The fetched algorithm lives as long as the process: a static
// destructor would free it while other threads still sign during exit.
// Thread: see signature.hpp.
#include "webhooks/signature.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <optional>
#include <utility>

namespace webhooks {
namespace {

constexpr std::string_view kSecretPrefix = "whsec_";
constexpr std::size_t kSecretBytesMin = 24;
constexpr std::size_t kSecretBytesMax = 64;
constexpr std::size_t kSecretBytesMade = 32;
constexpr std::string_view kVersion = "v1,";
constexpr std::size_t kMacBytes = 32;

constexpr std::size_t base64_size(std::size_t bytes) noexcept {
  return (bytes + 2) / 3 * 4;
}
constexpr std::size_t kSignatureBytes =
    kVersion.size() + base64_size(kMacBytes);

// Room for a secret, or for its base64 and the NUL that OpenSSL adds.
class SecretBytes {
 public:
  SecretBytes() = default;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

  unsigned char* data() noexcept { return bytes_.data(); }
  std::string_view text(std::size_t size) const noexcept {
    return {reinterpret_cast<const char*>(bytes_.data()), size};
  }

 private:
  std::array<unsigned char, base64_size(kSecretBytesMax) + 1> bytes_;
};

Error crypto_error() { return Error{"crypto", "OpenSSL failed"}; }

const unsigned char* octets(std::string_view text) noexcept {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// Decodes a secret. Returns its size, or nullopt if `base64` is not canonical
// or the size is out of range. OpenSSL's decoder also takes white space and
// leftover bits, so the result is encoded again and compared.
std::optional<std::size_t> decode_secret(std::string_view base64,
                                         SecretBytes& secret) noexcept {
  if (base64.size() % 4 != 0 || base64.size() < base64_size(kSecretBytesMin) ||
      base64.size() > base64_size(kSecretBytesMax)) {
    return std::nullopt;
  }
  const int decoded = EVP_DecodeBlock(secret.data(), octets(base64),
                                      static_cast<int>(base64.size()));
  const std::size_t padding = base64.size() - base64.find_last_not_of('=') - 1;
  if (decoded < 0 || padding > 2) {
    return std::nullopt;
  }
  const std::size_t size = static_cast<std::size_t>(decoded) - padding;
  SecretBytes again;
  EVP_EncodeBlock(again.data(), secret.data(), static_cast<int>(size));
  if (size < kSecretBytesMin || size > kSecretBytesMax ||
      again.text(base64.size()) != base64) {
    return std::nullopt;
  }
  return size;
}

// Returns a context with HMAC-SHA256 and a key that signs nothing; not every
// OpenSSL can copy a context without a key. Copying it is faster than a short
// HMAC, fetching the algorithm and its digest is slower. The context is made
// once and then only read. A failed attempt may be repeated.
const EVP_MAC_CTX* hmac_template() noexcept {
  static std::atomic<EVP_MAC_CTX*> made{nullptr};
  if (EVP_MAC_CTX* ready = made.load(std::memory_order_acquire)) {
    return ready;
  }
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  if (mac == nullptr) {
    return nullptr;
  }
  EVP_MAC_CTX* context = EVP_MAC_CTX_new(mac);
  EVP_MAC_free(mac);  // the context holds its own reference
  std::array<char, 7> digest = {"SHA256"};
  constexpr std::array<unsigned char, kMacBytes> kNoKey{};
  const std::array<OSSL_PARAM, 2> parameters = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest.data(), 0),
      OSSL_PARAM_construct_end()};
  EVP_MAC_CTX* earlier = nullptr;
  if (context != nullptr &&
      EVP_MAC_init(context, kNoKey.data(), kNoKey.size(), parameters.data()) ==
          1 &&
      made.compare_exchange_strong(earlier, context)) {
    return context;
  }
  EVP_MAC_CTX_free(context);  // it failed, or another thread was first
  return earlier;
}

std::optional<Error> check_message(std::string_view id,
                                   std::int64_t unix_seconds) {
  if (!is_message_id(id)) {
    return Error{"invalid_id", "1 to 255 visible ASCII characters and no dot"};
  }
  if (unix_seconds < 0) {
    return Error{"invalid_timestamp", "negative"};
  }
  return std::nullopt;
}

std::optional<Error> check_clock(std::int64_t unix_seconds, std::int64_t now,
                                 std::int64_t tolerance_s) {
  const auto [earlier, later] = std::minmax(unix_seconds, now);
  // The difference may need 64 bits without a sign.
  const auto distance =
      static_cast<std::uint64_t>(later) - static_cast<std::uint64_t>(earlier);
  if (distance <=
      static_cast<std::uint64_t>(std::max<std::int64_t>(tolerance_s, 0))) {
    return std::nullopt;
  }
  return Error{unix_seconds < now ? "timestamp_too_old" : "timestamp_too_new",
               ""};
}

// Calls `visit` with each space-separated entry until it returns true. Returns
// whether it did.
template <class Visit>
bool any_entry(std::string_view header, Visit&& visit) {
  while (!header.empty()) {
    const std::size_t end = std::min(header.find(' '), header.size());
    if (visit(header.substr(0, end))) {
      return true;
    }
    header.remove_prefix(std::min(end + 1, header.size()));
  }
  return false;
}

bool may_be_signature(std::string_view entry) noexcept {
  if (entry.starts_with(kVersion)) {
    return entry.size() == kSignatureBytes;
  }
  const std::size_t comma = entry.find(',');
  return comma != 0 && comma != std::string_view::npos;
}

}  // namespace

// The dot separates the parts of the signed text.
bool is_message_id(std::string_view id) noexcept {
  return !id.empty() && id.size() <= kMessageIdBytesMax &&
         std::ranges::all_of(
             id, [](char c) { return c > ' ' && c <= '~' && c != '.'; });
}

void SigningKey::ContextFree::operator()(
    evp_mac_ctx_st* context) const noexcept {
  EVP_MAC_CTX_free(context);
}

SigningKey::SigningKey(Context context) noexcept
    : context_(std::move(context)) {}

Result<SigningKey> SigningKey::parse(std::string_view encoded) {
  std::optional<std::size_t> size;
  SecretBytes secret;
  if (encoded.starts_with(kSecretPrefix)) {
    size = decode_secret(encoded.substr(kSecretPrefix.size()), secret);
  }
  if (!size) {
    return Error{"invalid_key", "whsec_ and base64 of 24 to 64 bytes"};
  }
  const EVP_MAC_CTX* blank = hmac_template();
  Context context(blank == nullptr ? nullptr : EVP_MAC_CTX_dup(blank));
  if (!context ||
      EVP_MAC_init(context.get(), secret.data(), *size, nullptr) != 1) {
    return crypto_error();
  }
  return SigningKey(std::move(context));
}

Status SigningKey::append_signature(std::string_view id,
                                    std::int64_t unix_seconds,
                                    std::string_view body, std::string& out) {
  if (auto error = check_message(id, unix_seconds)) {
    return *std::move(error);
  }
  // `id.timestamp.`, which is signed in front of the body.
  constexpr std::size_t kTimestampBytesMax = 20;
  std::array<char, kMessageIdBytesMax + kTimestampBytesMax + 2> front;
  char* end = std::ranges::copy(id, front.data()).out;
  *end++ = '.';
  end = std::to_chars(end, front.data() + front.size() - 1, unix_seconds).ptr;
  *end++ = '.';
  const auto front_bytes = static_cast<std::size_t>(end - front.data());
  std::array<unsigned char, kMacBytes> mac;
  std::size_t written = 0;
  EVP_MAC_CTX* context = context_.get();
  // EVP_MAC_init without a key keeps the key and restores the hash states of
  // its two pads.
  if (EVP_MAC_init(context, nullptr, 0, nullptr) != 1 ||
      EVP_MAC_update(context, octets({front.data(), front_bytes}),
                     front_bytes) != 1 ||
      EVP_MAC_update(context, octets(body), body.size()) != 1 ||
      EVP_MAC_final(context, mac.data(), &written, mac.size()) != 1 ||
      written != mac.size()) {
    return crypto_error();
  }
  std::array<unsigned char, base64_size(kMacBytes) + 1> base64;  // and a NUL
  EVP_EncodeBlock(base64.data(), mac.data(), kMacBytes);
  out.append(kVersion);
  out.append(reinterpret_cast<const char*>(base64.data()), base64.size() - 1);
  return Ok{};
}

bool prepare_signing() noexcept { return hmac_template() != nullptr; }

Result<std::string> sign(std::span<const std::string_view> keys,
                         std::string_view id, std::int64_t unix_seconds,
                         std::string_view body) {
  if (keys.empty()) {
    return Error{"no_keys", ""};
  }
  if (keys.size() > kSigningKeysMax) {
    return Error{"too_many_keys", "at most 10"};
  }
  std::string header;
  header.reserve(keys.size() * (kSignatureBytes + 1));
  for (const std::string_view encoded : keys) {
    auto key = SigningKey::parse(encoded);
    if (!key.ok()) {
      return key.error();
    }
    if (!header.empty()) {
      header.push_back(' ');
    }
    const Status status =
        key.value().append_signature(id, unix_seconds, body, header);
    if (!status.ok()) {
      return status.error();
    }
  }
  return header;
}

Status verify(std::span<const std::string_view> keys, std::string_view id,
              std::int64_t unix_seconds, std::string_view header,
              std::string_view body, std::int64_t now_unix_seconds,
              std::int64_t tolerance_s) {
  if (auto error = check_message(id, unix_seconds)) {
    return *std::move(error);
  }
  if (header.size() > kSignatureHeaderBytesMax ||
      !any_entry(header, may_be_signature)) {
    return Error{"invalid_header", ""};
  }
  if (auto error = check_clock(unix_seconds, now_unix_seconds, tolerance_s)) {
    return *std::move(error);
  }
  const auto expected = sign(keys, id, unix_seconds, body);
  if (!expected.ok()) {
    return expected.error();
  }
  // Base64 is canonical on both sides, so equal text is equal signatures.
  const bool match = any_entry(expected.value(), [&](std::string_view ours) {
    return any_entry(header, [&](std::string_view theirs) {
      return theirs.size() == ours.size() &&
             CRYPTO_memcmp(theirs.data(), ours.data(), ours.size()) == 0;
    });
  });
  if (!match) {
    return Error{"no_match", ""};
  }
  return Ok{};
}

Result<std::string> generate_secret() {
  SecretBytes secret;
  if (RAND_priv_bytes(secret.data(), kSecretBytesMade) != 1) {
    return crypto_error();
  }
  SecretBytes base64;
  EVP_EncodeBlock(base64.data(), secret.data(), kSecretBytesMade);
  return std::string(kSecretPrefix)
      .append(base64.text(base64_size(kSecretBytesMade)));
}

}  // namespace webhooks
