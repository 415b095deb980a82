// Purpose: no header that a user adds breaks out of its line, replaces one of
// the engine's headers, or exceeds a limit.
// Ownership: nothing outlives a run.
// Thread: one.
#include <algorithm>
#include <string>
#include <vector>

#include "require.hpp"
#include "webhooks/headers.hpp"

using namespace webhooks_fuzz;

namespace {

// A header for each line: a name, a colon, a value. NUL stands for a line end
// inside a header.
std::vector<webhooks::HeaderView> headers_of(std::string& text) {
  std::vector<webhooks::HeaderView> headers;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::replace(text.data() + at, text.data() + end, '\0', '\n');
    const std::string_view line(text.data() + at, end - at);
    const std::size_t colon = std::min(line.find(':'), line.size());
    headers.emplace_back(line.substr(0, colon),
                         line.substr(std::min(colon + 1, line.size())));
    at = end + 1;
  }
  return headers;
}

std::string lower(std::string_view name) {
  std::string text(name);
  std::ranges::transform(text, text.begin(), [](char c) {
    return c == '_' ? '-'
                    : (c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  });
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  std::string text(text_of(data, size));
  const std::vector<webhooks::HeaderView> headers = headers_of(text);
  const auto problem = webhooks::check_headers(headers);
  if (problem) {
    require(problem->index < headers.size() && !problem->reason.empty());
    return 0;
  }
  require(headers.size() <= webhooks::kHeadersMax);
  std::size_t bytes = 0;
  std::vector<std::string> names;
  for (const auto& [name, value] : headers) {
    const std::string plain = lower(name);
    require(!name.empty() && !value.empty());
    require(std::ranges::all_of(
        name, [](char c) { return c > ' ' && c < 0x7f && c != ':'; }));
    require(std::ranges::all_of(value,
                                [](char c) { return c >= ' ' && c < 0x7f; }));
    for (const char* ours : {"host", "cookie", "connection", "user-agent",
                             "transfer-encoding", "expect"}) {
      require(plain != ours);
    }
    for (const char* ours :
         {"webhook-", "content-", "proxy-", "x-forwarded-"}) {
      require(!plain.starts_with(ours));
    }
    names.push_back(plain);
    bytes += name.size() + value.size();
  }
  require(bytes <= webhooks::kHeaderTotalBytesMax);
  std::ranges::sort(names);
  require(std::ranges::adjacent_find(names) == names.end());
  return 0;
}
