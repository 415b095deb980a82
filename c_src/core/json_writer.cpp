// Purpose: the JSON writer: commas and nesting, number texts, and the scan that
// lets a string without anything to escape through as one copy.
// Ownership: the writer owns its bytes.
// Thread: any, one at a time.
#include "webhooks/json_writer.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <new>

#include "webhooks/utf8.hpp"

namespace webhooks {
namespace {

// What has been seen in a run of bytes, as marks in the top bits of eight bytes
// at a time: of a byte beyond ASCII, of a byte that needs an escape. Exact as
// to whether there is one; which one it is, is only looked for when there is.
struct Marks {
  std::uint64_t beyond_ascii = 0;
  std::uint64_t special = 0;

  bool ascii() const noexcept { return (beyond_ascii & kTops) == 0; }
  bool plain() const noexcept { return (special & kTops) == 0; }

  void see(std::uint64_t word) noexcept {
    const std::uint64_t quote = word ^ (kOnes * '"');
    const std::uint64_t backslash = word ^ (kOnes * '\\');
    beyond_ascii |= word;
    // (x - n) & ~x has a top bit set where a byte of x is below n.
    special |= (word - kOnes * 0x20) & ~word;
    special |= (quote - kOnes) & ~quote;
    special |= (backslash - kOnes) & ~backslash;
  }

 private:
  static constexpr std::uint64_t kOnes = 0x0101'0101'0101'0101U;
  static constexpr std::uint64_t kTops = kOnes * 0x80;
};

template <class Word>
Word load(const char* at) noexcept {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// Blocks of a fixed length without an early exit become vector instructions;
// ends overlap what is already seen instead of going byte by byte.
Marks scan(std::string_view bytes) noexcept {
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  constexpr std::size_t kBlock = 4 * kWord;
  Marks marks;
  const char* at = bytes.data();
  const std::size_t size = bytes.size();
  if (size >= kWord) {
    const char* const last = at + size - kWord;
    for (; last - at >= static_cast<std::ptrdiff_t>(kBlock); at += kBlock) {
      for (std::size_t i = 0; i < kBlock; i += kWord) {
        marks.see(load<std::uint64_t>(at + i));
      }
    }
    for (; at < last; at += kWord) {
      marks.see(load<std::uint64_t>(at));
    }
    marks.see(load<std::uint64_t>(last));
  } else if (size >= kWord / 2) {
    const std::uint64_t high = load<std::uint32_t>(at + size - kWord / 2);
    marks.see(load<std::uint32_t>(at) | (high << 32));
  } else if (size > 0) {
    // One byte seen several times does no harm.
    const auto byte = [at](std::size_t i) -> std::uint64_t {
      return static_cast<std::uint8_t>(at[i]);
    };
    marks.see((std::uint64_t{0x2020'2020'20} << 24) | (byte(size - 1) << 16) |
              (byte(size / 2) << 8) | byte(0));
  }
  return marks;
}

// What a byte becomes: 0 for itself, else the letter after the backslash; 'u'
// where only \u00XX will do.
constexpr std::array<char, 256> kEscapes = [] {
  std::array<char, 256> escapes{};
  for (std::size_t i = 0; i < 0x20; ++i) {
    escapes[i] = 'u';
  }
  escapes['"'] = '"';
  escapes['\\'] = '\\';
  escapes['\b'] = 'b';
  escapes['\f'] = 'f';
  escapes['\n'] = 'n';
  escapes['\r'] = 'r';
  escapes['\t'] = 't';
  return escapes;
}();
constexpr std::size_t kEscapeBytesMax = 6;

// Returns behind what it wrote, at most kEscapeBytesMax.
char* put_escaped(char* out, char plain) noexcept {
  constexpr std::string_view kHex = "0123456789abcdef";
  const auto byte = static_cast<std::uint8_t>(plain);
  const char escape = kEscapes[byte];
  if (escape == 0) {
    *out++ = plain;
    return out;
  }
  *out++ = '\\';
  *out++ = escape;
  if (escape == 'u') {
    *out++ = '0';
    *out++ = '0';
    *out++ = kHex[byte >> 4];
    *out++ = kHex[byte & 0x0F];
  }
  return out;
}

// Written out in full between these two, with an exponent outside: people read
// 250000.0 more easily than 2.5e+05, and nobody 300 zeros.
constexpr double kFixedMin = 1e-5;
constexpr double kFixedEnd = 1e16;

template <std::size_t N>
std::string_view written(const std::array<char, N>& text,
                         std::to_chars_result done) noexcept {
  return {text.data(), static_cast<std::size_t>(done.ptr - text.data())};
}

}  // namespace

bool JsonWriter::fail(std::string_view reason) noexcept {
  if (error_.empty()) {
    error_ = reason;
  }
  return false;
}

bool JsonWriter::grow(std::size_t more) noexcept {
  if (more > room()) {
    return fail("too_large");
  }
  const std::size_t capacity =
      std::min(bytes_max_, std::max(size_ + more, capacity_ * 2));
  std::unique_ptr<char[]> grown(new (std::nothrow) char[capacity]);
  if (!grown) {
    return fail("system_limit");
  }
  std::memcpy(grown.get(), data_, size_);
  heap_ = std::move(grown);
  data_ = heap_.get();
  capacity_ = capacity;
  return true;
}

bool JsonWriter::append(std::string_view bytes) noexcept {
  if (!reserve(bytes.size())) {
    return false;
  }
  put(bytes);
  return true;
}

void JsonWriter::put(std::string_view bytes) noexcept {
  if (!bytes.empty()) {
    std::memcpy(data_ + size_, bytes.data(), bytes.size());
  }
  size_ += bytes.size();
}

bool JsonWriter::value_may_stand() noexcept {
  if (!error_.empty()) {
    return false;
  }
  const bool inside_object = depth_ > 0 && is_object_[depth_ - 1];
  if (depth_ == 0 ? after_value_ : inside_object && !after_key_) {
    return fail("misuse");
  }
  return true;
}

void JsonWriter::value_stands() noexcept {
  after_key_ = false;
  after_value_ = true;
}

bool JsonWriter::scalar(std::string_view text) noexcept {
  const bool comma = comma_is_due();
  if (!value_may_stand() || !reserve(text.size() + (comma ? 1 : 0))) {
    return false;
  }
  if (comma) {
    put(',');
  }
  put(text);
  value_stands();
  return true;
}

bool JsonWriter::begin(bool object) noexcept {
  if (!value_may_stand()) {
    return false;
  }
  if (depth_ == kJsonDepthMax) {
    return fail("too_deep");
  }
  if (!scalar(object ? "{" : "[")) {
    return false;
  }
  is_object_[depth_++] = object;
  after_value_ = false;
  return true;
}

bool JsonWriter::end() noexcept {
  if (!error_.empty()) {
    return false;
  }
  if (depth_ == 0 || after_key_) {
    return fail("misuse");
  }
  if (!reserve(1)) {
    return false;
  }
  put(is_object_[--depth_] ? '}' : ']');
  value_stands();
  return true;
}

bool JsonWriter::key(std::string_view utf8) noexcept {
  if (!error_.empty()) {
    return false;
  }
  if (depth_ == 0 || !is_object_[depth_ - 1] || after_key_) {
    return fail("misuse");
  }
  if (!quoted(utf8, true)) {
    return false;
  }
  after_key_ = true;
  return true;
}

bool JsonWriter::null() noexcept { return scalar("null"); }

bool JsonWriter::boolean(bool value) noexcept {
  return scalar(value ? "true" : "false");
}

bool JsonWriter::integer(std::int64_t value) noexcept {
  std::array<char, 24> text;
  return scalar(written(text, std::to_chars(text.begin(), text.end(), value)));
}

bool JsonWriter::unsigned_integer(std::uint64_t value) noexcept {
  std::array<char, 24> text;
  return scalar(written(text, std::to_chars(text.begin(), text.end(), value)));
}

bool JsonWriter::number(double value) noexcept {
  if (!error_.empty()) {
    return false;
  }
  if (!std::isfinite(value)) {
    return fail("not_finite");
  }
  const double magnitude = std::fabs(value);
  const bool fixed =
      magnitude == 0 || (magnitude >= kFixedMin && magnitude < kFixedEnd);
  std::array<char, 40> text;
  auto done = std::to_chars(
      text.begin(), text.end(), value,
      fixed ? std::chars_format::fixed : std::chars_format::scientific);
  if (fixed && written(text, done).find('.') == std::string_view::npos) {
    *done.ptr++ = '.';
    *done.ptr++ = '0';
  }
  return scalar(written(text, done));
}

bool JsonWriter::string(std::string_view utf8) noexcept {
  if (!value_may_stand() || !quoted(utf8, false)) {
    return false;
  }
  value_stands();
  return true;
}

bool JsonWriter::verbatim(std::string_view json_value) noexcept {
  return scalar(json_value);
}

bool JsonWriter::quoted(std::string_view utf8, bool colon) noexcept {
  const bool comma = comma_is_due();
  const std::size_t around = 2 + (comma ? 1U : 0U) + (colon ? 1U : 0U);
  // Asked before the first byte is looked at: the length of a hopeless string
  // must cost nothing.
  if (room() < around || utf8.size() > room() - around) {
    return fail("too_large");
  }
  const Marks marks = scan(utf8);
  if (!marks.ascii() && !is_utf8(utf8)) {
    return fail("invalid_utf8");
  }
  if (!reserve(utf8.size() + around)) {
    return false;
  }
  if (comma) {
    put(',');
  }
  put('"');
  if (marks.plain()) {
    put(utf8);
  } else if (!escaped(utf8) || !reserve(colon ? 2 : 1)) {
    return false;
  }
  put('"');
  if (colon) {
    put(':');
  }
  return true;
}

bool JsonWriter::escaped(std::string_view utf8) noexcept {
  constexpr std::size_t kChunk = 64;
  std::array<char, kChunk * kEscapeBytesMax> text;
  while (!utf8.empty()) {
    const std::string_view chunk = utf8.substr(0, kChunk);
    utf8.remove_prefix(chunk.size());
    if (scan(chunk).plain()) {
      if (!append(chunk)) {
        return false;
      }
      continue;
    }
    char* end = text.data();
    for (const char byte : chunk) {
      end = put_escaped(end, byte);
    }
    if (!append({text.data(), static_cast<std::size_t>(end - text.data())})) {
      return false;
    }
  }
  return true;
}

}  // namespace webhooks
