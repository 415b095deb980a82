// Purpose: the grammar of RFC 8259 as a scan without values (json_fault.hpp).
// Ownership: plain values.
// Thread: any.
#include "core/json_fault.hpp"

#include <charconv>

#include "core/ascii.hpp"
#include "webhooks/utf8.hpp"

namespace webhooks {
namespace {

constexpr bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20;
}

// The code unit of four hexadecimal digits; nullopt: there are none.
std::optional<std::uint16_t> hex4(std::string_view text) noexcept {
  return text.size() == 4 ? to_integer<std::uint16_t>(text, 16) : std::nullopt;
}

// Length of the escape at the front of `text`, which starts with a backslash.
// 0: no such escape, or half a surrogate pair.
std::size_t escape_length(std::string_view text) noexcept {
  if (!text.starts_with("\\u")) {
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
  const auto second =
      text.substr(6, 2) == "\\u" ? hex4(text.substr(8, 4)) : std::nullopt;
  return second && *second >= 0xDC00 && *second <= 0xDFFF ? 12 : 0;
}

// Every method but the constructor returns false after a fault.
class Scan {
 public:
  explicit Scan(std::string_view json) noexcept : json_(json) {}

  bool document() noexcept {
    if (!more("empty") || !value(0)) {
      return false;
    }
    skip_blanks();
    return at_ == json_.size() || fail("trailing_content");
  }
  const JsonFault& fault() const noexcept { return fault_; }

 private:
  bool fail(std::string_view reason, std::size_t offset) noexcept {
    fault_ = {reason, offset};
    return false;
  }
  bool fail(std::string_view reason) noexcept { return fail(reason, at_); }
  void skip_blanks() noexcept {
    at_ = std::min(json_.find_first_not_of(" \t\r\n", at_), json_.size());
  }
  // Goes to the next token.
  bool more(std::string_view reason = "unexpected_end") noexcept {
    skip_blanks();
    return at_ < json_.size() || fail(reason);
  }

  bool value(std::size_t depth) noexcept;
  bool container(std::size_t depth, char close) noexcept;
  bool key() noexcept;
  bool string() noexcept;
  bool scalar() noexcept;

  std::string_view json_;
  std::size_t at_ = 0;
  JsonFault fault_;
};

// As deep as the reader's recursion.
// NOLINTNEXTLINE(misc-no-recursion)
bool Scan::value(std::size_t depth) noexcept {
  switch (json_[at_]) {
    case '[':
      return container(depth, ']');
    case '{':
      return container(depth, '}');
    case '"':
      return string();
    default:
      return scalar();
  }
}

// NOLINTNEXTLINE(misc-no-recursion)
bool Scan::container(std::size_t depth, char close) noexcept {
  if (depth == kJsonDepthMax) {
    return fail("too_deep");
  }
  ++at_;
  if (!more()) {
    return false;
  }
  char c = ',';
  if (json_[at_] == close) {
    c = json_[at_++];
  }
  while (c != close) {
    if (!more() || (close == '}' && !key()) || !value(depth + 1) || !more()) {
      return false;
    }
    c = json_[at_];
    if (c != ',' && c != close) {
      return fail("unexpected_token");
    }
    ++at_;
  }
  return true;
}

bool Scan::key() noexcept {
  if (json_[at_] != '"') {
    return fail("unexpected_token");
  }
  if (!string() || !more()) {
    return false;
  }
  if (json_[at_] != ':') {
    return fail("unexpected_token");
  }
  ++at_;
  return more();
}

bool Scan::string() noexcept {
  const std::size_t quote = at_++;
  while (at_ < json_.size()) {
    const char c = json_[at_];
    if (c == '"') {
      ++at_;
      return true;
    }
    if (is_control(c)) {
      return fail("control_character");
    }
    std::size_t length = 1;
    if (c == '\\' && at_ + 1 < json_.size()) {
      if (is_control(json_[at_ + 1])) {
        return fail("control_character", at_ + 1);
      }
      length = escape_length(json_.substr(at_));
      if (length == 0) {
        return fail("invalid_escape");
      }
    }
    at_ += length;
  }
  return fail("unclosed_string", quote);
}

// A literal or a number. It ends at white space, a control character or a
// structural character.
bool Scan::scalar() noexcept {
  const std::size_t start = at_;
  while (at_ < json_.size() && !is_control(json_[at_]) &&
         std::string_view(" ,:[]{}").find(json_[at_]) ==
             std::string_view::npos) {
    ++at_;
  }
  const auto read = read_json_scalar(json_.substr(start, at_ - start));
  const auto* fault = std::get_if<JsonFault>(&read);
  return fault == nullptr || fail(fault->reason, start);
}

// Takes one digit or more off the front.
bool take_digits(std::string_view& rest) noexcept {
  const std::size_t size = rest.size();
  while (!rest.empty() && is_digit(rest.front())) {
    rest.remove_prefix(1);
  }
  return rest.size() < size;
}

}  // namespace

JsonScalar read_json_scalar(std::string_view token) noexcept {
  if (token == "null") {
    return nullptr;
  }
  if (token == "true" || token == "false") {
    return token == "true";
  }
  const char first = token.empty() ? ' ' : token.front();
  if (is_letter(first)) {
    return JsonFault{"invalid_literal", 0};
  }
  if (first != '-' && !is_digit(first)) {
    return JsonFault{"unexpected_token", 0};
  }
  const JsonFault invalid{"invalid_number", 0};
  std::string_view rest = token;
  rest.remove_prefix(first == '-' ? 1 : 0);
  const bool leading_zero = rest.starts_with('0');
  const std::size_t whole = rest.size();
  if (!take_digits(rest) || (leading_zero && whole - rest.size() > 1)) {
    return invalid;
  }
  const bool integer = rest.empty();
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    if (!take_digits(rest)) {
      return invalid;
    }
  }
  if (!rest.empty() && to_lower(rest.front()) == 'e') {
    rest.remove_prefix(1);
    if (rest.starts_with('+') || rest.starts_with('-')) {
      rest.remove_prefix(1);
    }
    if (!take_digits(rest)) {
      return invalid;
    }
  }
  if (!rest.empty()) {
    return invalid;
  }
  const auto converted = [token](auto number) -> JsonScalar {
    if (std::from_chars(token.data(), token.data() + token.size(), number).ec !=
        std::errc{}) {
      return JsonFault{"number_out_of_range", 0};
    }
    return number;
  };
  return integer ? converted(std::int64_t{}) : converted(double{});
}

std::optional<JsonFault> find_json_fault(std::string_view json) noexcept {
  if (const auto at = utf8_error_offset(json)) {
    return JsonFault{"invalid_utf8", *at};
  }
  Scan scan(json);
  if (scan.document()) {
    return std::nullopt;
  }
  return scan.fault();
}

}  // namespace webhooks
