// Purpose: builds the bytes and steps of the test server's answers.
// Ownership: plain values.
// Thread: any.
#include "reply.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>

namespace webhooks::test {

Reply& Reply::add(Step::Kind kind, std::string data, std::uint32_t ms,
                  std::size_t piece) {
  steps_.push_back(Step{kind, std::move(data), piece, ms});
  return *this;
}

Reply& Reply::answer(int status, const Headers& headers,
                     std::string_view body) {
  return send(answer_bytes(status, headers, body));
}
Reply& Reply::send(std::string bytes) {
  return add(Step::Kind::kSend, std::move(bytes));
}
Reply& Reply::drip(std::string bytes, std::uint32_t ms, std::size_t piece) {
  return add(Step::Kind::kSend, std::move(bytes), ms, piece);
}
Reply& Reply::endless(std::string bytes, std::uint32_t ms) {
  return add(Step::Kind::kEndless, std::move(bytes), ms);
}
Reply& Reply::wait(std::uint32_t ms) { return add(Step::Kind::kWait, {}, ms); }
Reply& Reply::finish() { return add(Step::Kind::kFinish); }
Reply& Reply::close() { return add(Step::Kind::kClose); }
Reply& Reply::reset() { return add(Step::Kind::kReset); }
Reply& Reply::hang() { return add(Step::Kind::kHang); }
Reply& Reply::early() {
  early_ = true;
  return *this;
}

std::string answer_bytes(int status, const Headers& headers,
                         std::string_view body) {
  // Three digits always: 0 has to go out as "000".
  std::array<char, 16> code{};
  std::snprintf(code.data(), code.size(), "%03d", status);
  std::string out = "HTTP/1.1 ";
  out.append(code.data()).append(" Scripted\r\n");
  for (const auto& [name, value] : headers) {
    out.append(name).append(": ").append(value).append("\r\n");
  }
  if (status >= 200 && status != 204) {
    out.append("Content-Length: ")
        .append(std::to_string(body.size()))
        .append("\r\n");
  }
  out.append("\r\n").append(body);
  return out;
}

std::string chunked(std::string_view body, std::size_t piece) {
  std::string out;
  for (std::size_t at = 0; at < body.size(); at += piece) {
    const std::string_view part = body.substr(at, piece);
    std::array<char, 24> size{};
    std::snprintf(size.data(), size.size(), "%zx\r\n", part.size());
    out.append(size.data()).append(part).append("\r\n");
  }
  return out.append("0\r\n\r\n");
}

}  // namespace webhooks::test
