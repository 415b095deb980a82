// Purpose: no key, header or body crashes signing and verifying, what was
// signed verifies, and what was not does not.
// Ownership: nothing outlives a run.
// Thread: one.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "core/base64.hpp"
#include "webhooks/signature.hpp"

namespace {

constexpr std::int64_t kNow = 1700000000;
constexpr std::string_view kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
constexpr std::string_view kPublic =
    "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

void require(bool holds) {
  if (!holds) std::abort();
}

// A stranger's header must never match a key he does not have.
void check_header(std::string_view header) {
  const std::string_view keys[] = {kSecret, kPublic};
  require(!webhooks::verify(keys, "msg_1", kNow, header, "body", kNow, 0).ok());
}

void check_key(std::string_view text) {
  auto key = webhooks::SigningKey::parse(text);
  if (!key.ok()) return;
  std::string header;
  require(key.value().append_signature("msg_1", kNow, text, header).ok());
  if (!text.starts_with("whsec_")) return;
  const std::string_view keys[] = {text};
  require(webhooks::verify(keys, "msg_1", kNow, header, text, kNow, 0).ok());
  require(
      !webhooks::verify(keys, "msg_1", kNow + 1, header, text, kNow, 1).ok());
}

void check_message(std::string_view id, std::string_view body) {
  std::vector<webhooks::SigningKey> keys;
  keys.push_back(webhooks::SigningKey::parse(kSecret).value());
  const auto header = webhooks::sign(keys, id, kNow, body);
  const std::string_view verifiers[] = {kSecret};
  const auto verified =
      webhooks::verify(verifiers, id, kNow,
                       header.ok() ? header.value() : "v1,x", body, kNow, 0);
  require(header.ok() == verified.ok());
}

void check_base64(std::string_view text) {
  const auto size = webhooks::base64_decoded_size(text);
  if (!size) return;
  std::vector<std::uint8_t> bytes(*size);
  if (!webhooks::base64_decode(text, bytes)) return;
  std::string again;
  webhooks::base64_append(bytes, again);
  require(again == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_header(text);
  check_key(text);
  check_key("whsec_" + std::string(text));
  check_key("whsk_" + std::string(text));
  check_base64(text);
  const std::size_t half = size / 2;
  check_message(text.substr(0, half), text.substr(half));
  return 0;
}
