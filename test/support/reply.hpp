// Purpose: the test server's reaction to one request, as a list of steps. The
// same steps describe good and hostile answers.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace webhooks::test {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Step {
  enum class Kind : std::uint8_t {
    kSend,     // the bytes, `piece` at a time with `ms` in between
    kEndless,  // the same, over and over until the peer goes away
    kWait,     // `ms`
    kFinish,   // end of the stream; what still comes in is read and dropped
    kClose,    // close at once
    kReset,    // close with RST
    kHang,     // nothing, until the peer goes away
  };
  Kind kind = Kind::kSend;
  std::string data;
  std::size_t piece = 0;  // 0: all at once
  std::uint32_t ms = 0;
};

// After the last step the connection waits for the next request, unless a step
// has closed it.
class Reply {
 public:
  // A whole answer with Content-Length (none for 1xx and 204).
  Reply& answer(int status, const Headers& headers = {},
                std::string_view body = {});
  // Bytes as they are.
  Reply& send(std::string bytes);
  // Bytes as they are, `piece` of them every `ms`.
  Reply& drip(std::string bytes, std::uint32_t ms, std::size_t piece = 1);
  Reply& endless(std::string bytes, std::uint32_t ms = 0);
  Reply& wait(std::uint32_t ms);
  Reply& finish();
  Reply& close();
  Reply& reset();
  Reply& hang();
  // Begins before the body of the request has come in.
  Reply& early();

  const std::vector<Step>& steps() const noexcept { return steps_; }
  bool is_early() const noexcept { return early_; }

 private:
  Reply& add(Step::Kind kind, std::string data = {}, std::uint32_t ms = 0,
             std::size_t piece = 0);

  std::vector<Step> steps_;
  bool early_ = false;
};

// The bytes of an answer, for drips and for answers that need a change.
std::string answer_bytes(int status, const Headers& headers = {},
                         std::string_view body = {});
// The bytes of a body in chunks of `piece`, with the last chunk.
std::string chunked(std::string_view body, std::size_t piece);

inline Reply answer(int status, const Headers& headers = {},
                    std::string_view body = {}) {
  Reply reply;
  reply.answer(status, headers, body);
  return reply;
}

}  // namespace webhooks::test
