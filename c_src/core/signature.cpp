// Purpose: signs and verifies by the Standard Webhooks scheme (v1, v1a).
// Ownership: a SigningKey owns its OpenSSL contexts, which OpenSSL cleanses
// when it frees them.
// Thread: see signature.hpp.
#include "webhooks/signature.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "core/base64.hpp"
#include "core/signature_keys.hpp"

namespace webhooks {
namespace {

constexpr std::string_view kHmacVersion = "v1,";
constexpr std::string_view kEd25519Version = "v1a,";

constexpr std::size_t kEd25519Bytes = 64;
constexpr std::size_t kIdBytesMax = 255;

using Mac = std::array<std::uint8_t, kMacBytes>;
using Ed25519Signature = std::array<std::uint8_t, kEd25519Bytes>;

// `id.timestamp.`: what is signed in front of the body.
class Preamble {
 public:
  Preamble(std::string_view id, std::int64_t unix_seconds) noexcept {
    char* at = std::copy(id.begin(), id.end(), text_.data());
    *at++ = '.';
    at = std::to_chars(at, text_.data() + text_.size() - 1, unix_seconds).ptr;
    *at++ = '.';
    size_ = static_cast<std::size_t>(at - text_.data());
  }
  std::string_view view() const noexcept { return {text_.data(), size_}; }

 private:
  static constexpr std::size_t kTimestampBytesMax = 20;
  std::array<char, kIdBytesMax + kTimestampBytesMax + 2> text_;
  std::size_t size_ = 0;
};

const unsigned char* octets(std::string_view text) noexcept {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// Re-initialising with no key keeps the key: only the two pads' hash states
// are copied back.
bool compute_mac(EVP_MAC_CTX* context, std::string_view preamble,
                 std::string_view body, Mac& out) noexcept {
  std::size_t written = 0;
  return EVP_MAC_init(context, nullptr, 0, nullptr) == 1 &&
         EVP_MAC_update(context, octets(preamble), preamble.size()) == 1 &&
         EVP_MAC_update(context, octets(body), body.size()) == 1 &&
         EVP_MAC_final(context, out.data(), &written, out.size()) == 1 &&
         written == out.size();
}

// Ed25519 reads its message twice and so takes it in one piece only.
std::string whole_message(std::string_view preamble, std::string_view body) {
  std::string message;
  message.reserve(preamble.size() + body.size());
  return message.append(preamble).append(body);
}

std::optional<Error> check_message(std::string_view id,
                                   std::int64_t unix_seconds) {
  const auto forbidden = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '.' || byte <= 0x20 || byte >= 0x7f;
  };
  if (id.empty() || id.size() > kIdBytesMax ||
      std::ranges::any_of(id, forbidden)) {
    return Error{"invalid_id", "1 to 255 visible ASCII characters and no dot"};
  }
  if (unix_seconds < 0) {
    return Error{"invalid_timestamp", "negative"};
  }
  return std::nullopt;
}

std::optional<Error> check_key_count(std::size_t count) {
  if (count == 0) {
    return Error{"no_keys", ""};
  }
  if (count > kSigningKeysMax) {
    return Error{"too_many_keys", "at most 10"};
  }
  return std::nullopt;
}

}  // namespace

// Exactly one of `mac` and `pair` is set.
struct SigningKey::Impl {
  MacContext mac;
  PublicOrPrivateKey pair;
  DigestContext signer;
};

SigningKey::SigningKey(std::unique_ptr<Impl> impl) noexcept
    : impl_(std::move(impl)) {}
SigningKey::SigningKey(SigningKey&&) noexcept = default;
SigningKey& SigningKey::operator=(SigningKey&&) noexcept = default;
SigningKey::~SigningKey() = default;

Result<SigningKey> SigningKey::parse(std::string_view encoded) {
  auto impl = std::make_unique<Impl>();
  if (encoded.starts_with(kSecretPrefix)) {
    auto mac = parse_secret(encoded.substr(kSecretPrefix.size()));
    if (!mac.ok()) {
      return mac.error();
    }
    impl->mac = std::move(mac).value();
  } else if (encoded.starts_with(kSigningPrefix)) {
    auto pair = parse_signing_key(encoded.substr(kSigningPrefix.size()));
    if (!pair.ok()) {
      return pair.error();
    }
    impl->pair = std::move(pair).value();
    impl->signer.reset(EVP_MD_CTX_new());
    if (!impl->signer) {
      return crypto_error();
    }
  } else {
    return invalid_key("a signing key starts with whsec_ or whsk_");
  }
  return SigningKey(std::move(impl));
}

Status SigningKey::append_signature(std::string_view id,
                                    std::int64_t unix_seconds,
                                    std::string_view body, std::string& out) {
  if (auto error = check_message(id, unix_seconds)) {
    return *std::move(error);
  }
  const Preamble preamble(id, unix_seconds);
  if (impl_->mac) {
    Mac mac;
    if (!compute_mac(impl_->mac.get(), preamble.view(), body, mac)) {
      return crypto_error();
    }
    out.append(kHmacVersion);
    base64_append(mac, out);
    return Ok{};
  }
  const std::string message = whole_message(preamble.view(), body);
  Ed25519Signature signature;
  std::size_t size = signature.size();
  EVP_MD_CTX* signer = impl_->signer.get();
  if (EVP_DigestSignInit(signer, nullptr, nullptr, nullptr,
                         impl_->pair.get()) != 1 ||
      EVP_DigestSign(signer, signature.data(), &size, octets(message),
                     message.size()) != 1 ||
      size != signature.size()) {
    return crypto_error();
  }
  out.append(kEd25519Version);
  base64_append(signature, out);
  return Ok{};
}

Result<std::string> sign(std::span<SigningKey> keys, std::string_view id,
                         std::int64_t unix_seconds, std::string_view body) {
  if (auto error = check_key_count(keys.size())) {
    return *std::move(error);
  }
  std::string header;
  for (SigningKey& key : keys) {
    if (!header.empty()) {
      header.push_back(' ');
    }
    const Status status = key.append_signature(id, unix_seconds, body, header);
    if (!status.ok()) {
      return status.error();
    }
  }
  return header;
}

namespace {

// The entries of a signature header that this scheme knows; entries of other
// versions are left out, as the specification asks.
struct ReceivedSignatures {
  std::vector<Mac> macs;
  std::vector<Ed25519Signature> ed25519;
};

// False: neither a signature nor an entry of an unknown version.
bool read_entry(std::string_view entry, ReceivedSignatures& out) {
  const auto decode_into = [](std::string_view text, auto& list) {
    auto& bytes = list.emplace_back();
    if (base64_decode(text, bytes)) {
      return true;
    }
    list.pop_back();
    return false;
  };
  if (entry.starts_with(kHmacVersion)) {
    return decode_into(entry.substr(kHmacVersion.size()), out.macs);
  }
  if (entry.starts_with(kEd25519Version)) {
    return decode_into(entry.substr(kEd25519Version.size()), out.ed25519);
  }
  const std::size_t comma = entry.find(',');
  return comma != 0 && comma != std::string_view::npos;
}

std::optional<ReceivedSignatures> read_header(std::string_view header) {
  if (header.empty() || header.size() > kSignatureHeaderBytesMax) {
    return std::nullopt;
  }
  ReceivedSignatures received;
  bool any = false;
  std::size_t start = 0;
  while (start <= header.size()) {
    const std::size_t end = std::min(header.find(' ', start), header.size());
    if (end > start) {
      any |= read_entry(header.substr(start, end - start), received);
    }
    start = end + 1;
  }
  if (!any) {
    return std::nullopt;
  }
  return received;
}

std::optional<Error> check_clock(std::int64_t unix_seconds, std::int64_t now,
                                 std::int64_t tolerance_s) {
  // Unsigned differences of the larger and the smaller cannot overflow.
  using Unsigned = std::uint64_t;
  const auto tolerance =
      static_cast<Unsigned>(std::max<std::int64_t>(tolerance_s, 0));
  if (unix_seconds<now&& static_cast<Unsigned>(now) -
                   static_cast<Unsigned>(unix_seconds)>
          tolerance) {
    return Error{"timestamp_too_old", ""};
  }
  if (unix_seconds > now &&
      static_cast<Unsigned>(unix_seconds) - static_cast<Unsigned>(now) >
          tolerance) {
    return Error{"timestamp_too_new", ""};
  }
  return std::nullopt;
}

struct Message {
  Preamble preamble;
  std::string_view body;
};

Result<bool> matches_secret(std::string_view base64, const Message& message,
                            const ReceivedSignatures& received) {
  auto context = parse_secret(base64);
  if (!context.ok()) {
    return context.error();
  }
  Mac mac;
  if (!compute_mac(context.value().get(), message.preamble.view(), message.body,
                   mac)) {
    return crypto_error();
  }
  bool match = false;
  for (const Mac& candidate : received.macs) {
    match |= CRYPTO_memcmp(candidate.data(), mac.data(), mac.size()) == 0;
  }
  return match;
}

Result<bool> matches_public_key(std::string_view base64, const Message& message,
                                const ReceivedSignatures& received) {
  auto key = parse_public_key(base64);
  if (!key.ok()) {
    return key.error();
  }
  if (received.ed25519.empty()) {
    return false;
  }
  const std::string whole =
      whole_message(message.preamble.view(), message.body);
  const DigestContext context(EVP_MD_CTX_new());
  if (!context) {
    return crypto_error();
  }
  for (const Ed25519Signature& candidate : received.ed25519) {
    if (EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr,
                             key.value().get()) != 1) {
      return crypto_error();
    }
    if (EVP_DigestVerify(context.get(), candidate.data(), candidate.size(),
                         octets(whole), whole.size()) == 1) {
      return true;
    }
  }
  return false;
}

}  // namespace

Status verify(std::span<const std::string_view> keys, std::string_view id,
              std::int64_t unix_seconds, std::string_view header,
              std::string_view body, std::int64_t now_unix_seconds,
              std::int64_t tolerance_s) {
  if (auto error = check_key_count(keys.size())) {
    return *std::move(error);
  }
  if (auto error = check_message(id, unix_seconds)) {
    return *std::move(error);
  }
  const auto received = read_header(header);
  if (!received) {
    return Error{"invalid_header", ""};
  }
  if (auto error = check_clock(unix_seconds, now_unix_seconds, tolerance_s)) {
    return *std::move(error);
  }
  const Message message{Preamble(id, unix_seconds), body};
  bool match = false;
  for (const std::string_view key : keys) {
    Result<bool> found = invalid_key("a key starts with whsec_ or whpk_");
    if (key.starts_with(kSecretPrefix)) {
      found =
          matches_secret(key.substr(kSecretPrefix.size()), message, *received);
    } else if (key.starts_with(kPublicPrefix)) {
      found = matches_public_key(key.substr(kPublicPrefix.size()), message,
                                 *received);
    }
    if (!found.ok()) {
      return found.error();
    }
    match |= found.value();
  }
  if (!match) {
    return Error{"no_match", ""};
  }
  return Ok{};
}

}  // namespace webhooks
