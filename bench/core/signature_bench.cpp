// Purpose: the cost of a signature, from the body to `v1,<base64>`: with a key
// that keeps its HMAC context, and with OpenSSL's one-shot HMAC().
#include <benchmark/benchmark.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "webhooks/signature.hpp"

namespace {

constexpr std::string_view kSecret =
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
constexpr std::string_view kId = "msg_01M858NWV1HJYQ0H5PJM87Z874";
constexpr std::int64_t kNow = 1'795'471'194;

std::string body_of(const benchmark::State& state) {
  return std::string(static_cast<std::size_t>(state.range(0)), 'x');
}

// The bytes that `kSecret` encodes.
std::array<unsigned char, 32> secret_bytes() {
  std::array<unsigned char, 32> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(i);
  }
  return bytes;
}

// A sender without a context: it keeps its buffers and sets up the key every
// time.
class OneShot {
 public:
  bool sign(std::string_view body, std::string& out) {
    message_.assign(kId).append(".");
    message_.append(std::to_string(kNow)).append(".").append(body);
    std::array<unsigned char, 32> mac;
    unsigned size = 0;
    if (HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<const unsigned char*>(message_.data()),
             message_.size(), mac.data(), &size) == nullptr) {
      return false;
    }
    std::array<unsigned char, 45> base64;
    const int length =
        EVP_EncodeBlock(base64.data(), mac.data(), static_cast<int>(size));
    out.append("v1,").append(reinterpret_cast<const char*>(base64.data()),
                             static_cast<std::size_t>(length));
    return true;
  }

 private:
  std::array<unsigned char, 32> secret_ = secret_bytes();
  std::string message_;
};

template <class Sign>
void measure(benchmark::State& state, std::string_view body, Sign sign) {
  std::string out;
  for (auto _ : state) {
    out.clear();
    if (!sign(body, out)) {
      state.SkipWithError("not signed");
      break;
    }
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void hmac_keyed_context(benchmark::State& state) {
  const std::string body = body_of(state);
  auto key = webhooks::SigningKey::parse(kSecret);
  OneShot reference;
  std::string ours;
  std::string theirs;
  if (!key.ok() || !key.value().append_signature(kId, kNow, body, ours).ok() ||
      !reference.sign(body, theirs) || ours != theirs) {
    state.SkipWithError("the two do not agree");
    return;
  }
  measure(state, body, [&](std::string_view text, std::string& out) {
    return key.value().append_signature(kId, kNow, text, out).ok();
  });
}

void hmac_one_shot(benchmark::State& state) {
  OneShot reference;
  measure(state, body_of(state), [&](std::string_view text, std::string& out) {
    return reference.sign(text, out);
  });
}

BENCHMARK(hmac_keyed_context)->Arg(256)->Arg(656)->Arg(4096);
BENCHMARK(hmac_one_shot)->Arg(256)->Arg(656)->Arg(4096);

}  // namespace
