// Purpose: no text crashes check_url. An accepted URL is normalized and stable,
// and its name is not an address in disguise.
// Ownership: nothing outlives a run.
// Thread: one.
#include <netdb.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "allowing.hpp"
#include "require.hpp"
#include "webhooks/url.hpp"
#include "webhooks/utf8.hpp"

using namespace webhooks_fuzz;

namespace {

// Whether the system's resolver would read the name as an address.
bool is_numeric_to_resolver(const std::string& host) {
  ::addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  ::addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

void check_accepted(const webhooks::Url& url,
                    const webhooks::UrlPolicy& policy) {
  require(url.text.size() <= webhooks::kUrlBytesMax);
  for (const char c : url.text) require(c > 0x20 && c < 0x7f && c != '\\');
  require(url.text.starts_with(url.scheme + "://"));
  require(url.scheme == "https" ||
          (!policy.https_only && url.scheme == "http"));
  require(url.port != 0);
  require(webhooks::is_utf8(url.host_unicode));
  require(!url.host.empty() && url.text.find('#') == std::string::npos);

  require(url.literal.has_value() == is_numeric_to_resolver(url.host));
  require(url.literal || !webhooks::is_blocked_port(url.port) ||
          policy.addresses.allows_name(url.host, url.port));
  if (url.literal) {
    require(!policy.addresses.judge(*url.literal, url.port, {}));
    require(url.literal->to_string() == url.host);
  }

  const auto again = webhooks::check_url(url.text, policy);
  require(again.ok());
  require(again.value().text == url.text && again.value().host == url.host &&
          again.value().port == url.port &&
          again.value().scheme == url.scheme &&
          again.value().host_unicode == url.host_unicode);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t choice = data[0];
  std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  static const webhooks::AddressPolicy open =
      webhooks_test::allowing("127.0.0.0/8:* 10.0.0.0/8 n8n:5678 db:22");
  webhooks::UrlPolicy policy;
  policy.https_only = (choice & 1) != 0;
  if ((choice & 2) != 0) policy.addresses = open;
  // Most inputs that matter differ only after the scheme.
  if ((choice & 8) == 0) text.insert(0, "https://");
  const auto url = webhooks::check_url(text, policy);
  if (url.ok()) {
    check_accepted(url.value(), policy);
  } else {
    require(!url.error().reason.empty());
  }
  return 0;
}
