// Purpose: no key, header or body crashes signing and verifying. A signed
// message verifies, and nothing else does.
// Ownership: nothing outlives a run.
// Thread: one.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "require.hpp"
#include "webhooks/signature.hpp"

using namespace webhooks_fuzz;

namespace {

constexpr std::int64_t kNow = 1700000000;
constexpr std::string_view kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

// No header verifies, because none was signed with the key.
void check_header(std::string_view header) {
  const std::string_view keys[] = {kSecret};
  require(!webhooks::verify(keys, "msg_1", kNow, header, "body", kNow, 0).ok());
}

void check_key(std::string_view text) {
  auto key = webhooks::SigningKey::parse(text);
  if (!key.ok()) return;
  std::string header;
  require(key.value().append_signature("msg_1", kNow, text, header).ok());
  const std::string_view keys[] = {text};
  require(webhooks::verify(keys, "msg_1", kNow, header, text, kNow, 0).ok());
  require(
      !webhooks::verify(keys, "msg_1", kNow + 1, header, text, kNow, 1).ok());
}

void check_message(std::string_view id, std::string_view body) {
  const std::string_view keys[] = {kSecret};
  const auto header = webhooks::sign(keys, id, kNow, body);
  const auto verified = webhooks::verify(
      keys, id, kNow, header.ok() ? header.value() : "v1,x", body, kNow, 0);
  require(header.ok() == verified.ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view text = text_of(data, size);
  check_header(text);
  check_key(text);
  check_key("whsec_" + std::string(text));
  const std::size_t half = size / 2;
  check_message(text.substr(0, half), text.substr(half));
  return 0;
}
