// Purpose: the grammar of RFC 8259 as a scan without values (json_fault.hpp).
// Ownership: plain values.
// Thread: any.
#include "core/json_fault.hpp"

#include <bitset>
#include <charconv>

#include "core/ascii.hpp"
#include "webhooks/utf8.hpp"

namespace webhooks {
namespace {

constexpr bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20;
}

std::size_t digits_end(std::string_view text, std::size_t at) noexcept {
  while (at < text.size() && is_digit(text[at])) {
    ++at;
  }
  return at;
}

// The code unit of four hexadecimal digits; nullopt: there are none.
std::optional<unsigned> hex4(std::string_view text) noexcept {
  unsigned value = 0;
  const char* const end = text.data() + text.size();
  if (text.size() != 4 ||
      std::from_chars(text.data(), end, value, 16).ptr != end) {
    return std::nullopt;
  }
  return value;
}

// Length of the escape at the front of `text`, which starts with a backslash.
// 0: no such escape, or half a surrogate pair.
std::size_t escape_length(std::string_view text) noexcept {
  if (text.size() < 2) {
    return 0;
  }
  if (text[1] != 'u') {
    constexpr std::string_view kLetters = "\"\\/bfnrt";
    return kLetters.find(text[1]) == std::string_view::npos ? 0 : 2;
  }
  const auto first = hex4(text.substr(2, 4));
  if (!first || (*first >= 0xDC00 && *first <= 0xDFFF)) {
    return 0;
  }
  if (*first < 0xD800 || *first > 0xDFFF) {
    return 6;
  }
  if (text.substr(6, 2) != "\\u") {
    return 0;
  }
  const auto second = hex4(text.substr(8, 4));
  return second && *second >= 0xDC00 && *second <= 0xDFFF ? 12 : 0;
}

class Scan {
 public:
  explicit Scan(std::string_view json) noexcept : json_(json) {}

  std::optional<JsonFault> run() noexcept {
    while (!fault_ && !done_) {
      step();
    }
    return fault_;
  }

 private:
  // What may come next. The first element or key of a container may be missing.
  enum class Due { kValue, kElement, kKey, kMember, kColon, kSeparator };

  void fail(std::string_view reason, std::size_t offset) noexcept {
    fault_ = JsonFault{reason, offset};
  }
  bool in_object() const noexcept { return is_object_[depth_ - 1]; }

  void step() noexcept;
  void value(char first) noexcept;
  void open(bool object) noexcept;
  void close() noexcept;
  void separator(char c) noexcept;
  void string() noexcept;
  void scalar() noexcept;

  std::string_view json_;
  std::size_t at_ = 0;
  Due due_ = Due::kValue;
  std::size_t depth_ = 0;
  std::bitset<kJsonDepthMax> is_object_;
  bool done_ = false;
  std::optional<JsonFault> fault_;
};

void Scan::step() noexcept {
  at_ = std::min(json_.find_first_not_of(" \t\r\n", at_), json_.size());
  if (at_ == json_.size()) {
    if (depth_ == 0 && due_ == Due::kSeparator) {
      done_ = true;
    } else {
      fail(depth_ == 0 ? "empty" : "unexpected_end", at_);
    }
    return;
  }
  const char c = json_[at_];
  switch (due_) {
    case Due::kElement:
      return c == ']' ? close() : value(c);
    case Due::kValue:
      return value(c);
    case Due::kMember:
      if (c == '}') {
        return close();
      }
      [[fallthrough]];
    case Due::kKey:
      if (c != '"') {
        return fail("unexpected_token", at_);
      }
      string();
      due_ = Due::kColon;
      return;
    case Due::kColon:
      if (c != ':') {
        return fail("unexpected_token", at_);
      }
      ++at_;
      due_ = Due::kValue;
      return;
    case Due::kSeparator:
      return separator(c);
  }
}

void Scan::separator(char c) noexcept {
  if (depth_ == 0) {
    return fail("trailing_content", at_);
  }
  if (c == ',') {
    ++at_;
    due_ = in_object() ? Due::kKey : Due::kValue;
  } else if (c == (in_object() ? '}' : ']')) {
    close();
  } else {
    fail("unexpected_token", at_);
  }
}

void Scan::value(char first) noexcept {
  if (first == '[' || first == '{') {
    return open(first == '{');
  }
  due_ = Due::kSeparator;
  return first == '"' ? string() : scalar();
}

void Scan::open(bool object) noexcept {
  if (depth_ == kJsonDepthMax) {
    return fail("too_deep", at_);
  }
  is_object_[depth_++] = object;
  due_ = object ? Due::kMember : Due::kElement;
  ++at_;
}

void Scan::close() noexcept {
  --depth_;
  ++at_;
  due_ = Due::kSeparator;
}

void Scan::string() noexcept {
  const std::size_t quote = at_++;
  while (at_ < json_.size()) {
    const char c = json_[at_];
    if (c == '"') {
      ++at_;
      return;
    }
    if (is_control(c)) {
      return fail("control_character", at_);
    }
    std::size_t length = 1;
    if (c == '\\') {
      const std::string_view rest = json_.substr(at_);
      if (rest.size() > 1 && is_control(rest[1])) {
        return fail("control_character", at_ + 1);
      }
      length = rest.size() > 1 ? escape_length(rest) : 1;
      if (length == 0) {
        return fail("invalid_escape", at_);
      }
    }
    at_ += length;
  }
  fail("unclosed_string", quote);
}

// A literal or a number. It ends at white space, a control character or a
// structural character.
void Scan::scalar() noexcept {
  const std::size_t start = at_;
  while (at_ < json_.size() && !is_control(json_[at_]) &&
         std::string_view(" ,:[]{}").find(json_[at_]) ==
             std::string_view::npos) {
    ++at_;
  }
  const std::string_view token = json_.substr(start, at_ - start);
  if (token == "null" || token == "true" || token == "false") {
    return;
  }
  if (token.empty() ||
      (token[0] != '-' && !is_digit(token[0]) && !is_letter(token[0]))) {
    return fail("unexpected_token", start);
  }
  if (is_letter(token[0])) {
    return fail("invalid_literal", start);
  }
  const NumberKind kind = number_kind(token);
  std::int64_t integer = 0;
  double real = 0;
  const char* const end = token.data() + token.size();
  if (kind == NumberKind::kInvalid) {
    fail("invalid_number", start);
  } else if ((kind == NumberKind::kInteger
                  ? std::from_chars(token.data(), end, integer)
                  : std::from_chars(token.data(), end, real))
                 .ec != std::errc{}) {
    fail("number_out_of_range", start);
  }
}

}  // namespace

NumberKind number_kind(std::string_view token) noexcept {
  NumberKind kind = NumberKind::kInteger;
  std::size_t at = token.starts_with('-') ? 1 : 0;
  std::size_t end = digits_end(token, at);
  if (end == at || (token[at] == '0' && end > at + 1)) {
    return NumberKind::kInvalid;
  }
  if (end < token.size() && token[end] == '.') {
    kind = NumberKind::kReal;
    at = end + 1;
    end = digits_end(token, at);
    if (end == at) {
      return NumberKind::kInvalid;
    }
  }
  if (end < token.size() && to_lower(token[end]) == 'e') {
    kind = NumberKind::kReal;
    at = end + 1;
    if (at < token.size() && (token[at] == '+' || token[at] == '-')) {
      ++at;
    }
    end = digits_end(token, at);
    if (end == at) {
      return NumberKind::kInvalid;
    }
  }
  return end == token.size() ? kind : NumberKind::kInvalid;
}

std::optional<JsonFault> find_json_fault(std::string_view json) noexcept {
  if (const auto at = utf8_error_offset(json)) {
    return JsonFault{"invalid_utf8", *at};
  }
  return Scan(json).run();
}

}  // namespace webhooks
