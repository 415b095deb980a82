// Purpose: the JSON writer: number texts, escapes, and the scan that copies a
// string in one piece if nothing in it needs an escape.
// Ownership: the writer owns its bytes.
// Thread: one at a time.
#include "webhooks/json_writer.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <new>

#include "webhooks/utf8.hpp"

namespace webhooks {
namespace {

// What a run of bytes contains, as marks in the top bits of eight bytes at a
// time: a byte beyond ASCII, a byte that needs an escape. The marks say whether
// there is such a byte, not which one it is.
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

// Blocks of a fixed length without an early exit become vector instructions.
// The last word overlaps the one before it, which is faster than single bytes.
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
    // Up to three bytes, some of them twice, behind five spaces.
    const auto byte = [at](std::size_t i) -> std::uint64_t {
      return static_cast<std::uint8_t>(at[i]);
    };
    marks.see((std::uint64_t{0x2020'2020'20} << 24) | (byte(size - 1) << 16) |
              (byte(size / 2) << 8) | byte(0));
  }
  return marks;
}

// 0: the byte needs no escape. 'u': only \u00XX. Otherwise the letter after the
// backslash.
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

// Writes at most kEscapeBytesMax bytes and returns the end.
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

template <std::size_t N>
std::string_view written(const std::array<char, N>& text,
                         std::to_chars_result done) noexcept {
  return {text.data(), static_cast<std::size_t>(done.ptr - text.data())};
}

}  // namespace

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

void JsonWriter::put(std::string_view bytes) noexcept {
  if (!bytes.empty()) {
    std::memcpy(data_ + size_, bytes.data(), bytes.size());
  }
  size_ += bytes.size();
}

bool JsonWriter::scalar(std::string_view text) noexcept {
  if (!reserve(text.size() + (comma_due_ ? 1 : 0))) {
    return false;
  }
  if (comma_due_) {
    put(',');
  }
  put(text);
  comma_due_ = true;
  return true;
}

bool JsonWriter::begin(bool object) noexcept {
  if (depth_ == kJsonDepthMax) {
    return fail("too_deep");
  }
  if (!scalar(object ? "{" : "[")) {
    return false;
  }
  is_object_[depth_++] = object;
  comma_due_ = false;
  return true;
}

bool JsonWriter::end() noexcept {
  if (!reserve(1)) {
    return false;
  }
  put(is_object_[--depth_] ? '}' : ']');
  comma_due_ = true;
  return true;
}

bool JsonWriter::integer(std::int64_t value) noexcept {
  std::array<char, 24> text;
  return scalar(written(text, std::to_chars(text.begin(), text.end(), value)));
}

bool JsonWriter::number(double value) noexcept {
  // Outside of this range with an exponent: people read 250000.0 more easily
  // than 2.5e+05, and nobody reads 300 zeros.
  constexpr double kFixedMin = 1e-5;
  constexpr double kFixedEnd = 1e16;
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
  return quoted(utf8, false);
}

bool JsonWriter::key(std::string_view utf8) noexcept {
  return quoted(utf8, true);
}

bool JsonWriter::quoted(std::string_view utf8, bool is_key) noexcept {
  const std::size_t around = 2 + (comma_due_ ? 1U : 0U) + (is_key ? 1U : 0U);
  // Checked first: a string that cannot fit must not be read.
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
  if (comma_due_) {
    put(',');
  }
  put('"');
  if (marks.plain()) {
    put(utf8);
  } else if (!escaped(utf8) || !reserve(is_key ? 2 : 1)) {
    return false;
  }
  put('"');
  if (is_key) {
    put(':');
  }
  comma_due_ = !is_key;
  return true;
}

bool JsonWriter::escaped(std::string_view utf8) noexcept {
  constexpr std::size_t kChunk = 64;
  std::array<char, kChunk * kEscapeBytesMax> text;
  while (!utf8.empty()) {
    std::string_view chunk = utf8.substr(0, kChunk);
    utf8.remove_prefix(chunk.size());
    if (!scan(chunk).plain()) {
      char* end = text.data();
      for (const char byte : chunk) {
        end = put_escaped(end, byte);
      }
      chunk = {text.data(), static_cast<std::size_t>(end - text.data())};
    }
    if (!reserve(chunk.size())) {
      return false;
    }
    put(chunk);
  }
  return true;
}

}  // namespace webhooks
