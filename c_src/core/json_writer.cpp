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

struct Traits {
  bool ascii;
  bool plain;  // nothing in it needs an escape
};

constexpr std::uint8_t needs_escape(std::uint8_t byte) noexcept {
  return static_cast<std::uint8_t>(static_cast<unsigned>(byte < 0x20) |
                                   static_cast<unsigned>(byte == '"') |
                                   static_cast<unsigned>(byte == '\\'));
}

// Blocks of a fixed length and no early exit inside: compilers turn the inner
// loop into a handful of vector instructions, which searching byte by byte for
// the first special one would forbid.
constexpr std::size_t kBlockBytes = 16;

Traits scan(std::string_view bytes) noexcept {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  std::array<std::uint8_t, kBlockBytes> all{};
  std::array<std::uint8_t, kBlockBytes> special{};
  std::size_t at = 0;
  for (; at + kBlockBytes <= bytes.size(); at += kBlockBytes) {
    for (std::size_t i = 0; i < kBlockBytes; ++i) {
      const std::uint8_t byte = data[at + i];
      all[i] = static_cast<std::uint8_t>(all[i] | byte);
      special[i] = static_cast<std::uint8_t>(special[i] | needs_escape(byte));
    }
  }
  std::uint8_t any = 0;
  std::uint8_t any_special = 0;
  for (std::size_t i = 0; i < kBlockBytes; ++i) {
    any = static_cast<std::uint8_t>(any | all[i]);
    any_special = static_cast<std::uint8_t>(any_special | special[i]);
  }
  for (; at < bytes.size(); ++at) {
    any = static_cast<std::uint8_t>(any | data[at]);
    any_special =
        static_cast<std::uint8_t>(any_special | needs_escape(data[at]));
  }
  return {any < 0x80, any_special == 0};
}

// The letter after the backslash; 'u' where only \u00XX will do.
constexpr char escape_letter(std::uint8_t byte) noexcept {
  switch (byte) {
    case '"':
      return '"';
    case '\\':
      return '\\';
    case '\b':
      return 'b';
    case '\f':
      return 'f';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    case '\t':
      return 't';
    default:
      return 'u';
  }
}

// Written out in full between these two, with an exponent outside: people read
// 250000.0 more easily than 2.5e+05, and nobody 300 zeros.
constexpr double kFixedMin = 1e-5;
constexpr double kFixedEnd = 1e16;

}  // namespace

bool JsonWriter::fail(std::string_view reason) noexcept {
  if (error_.empty()) error_ = reason;
  return false;
}

bool JsonWriter::reserve(std::size_t more) noexcept {
  if (more <= capacity_ - size_ && more <= room()) return true;
  if (more > room()) return fail("too_large");
  const std::size_t capacity =
      std::min(bytes_max_, std::max(size_ + more, capacity_ * 2));
  std::unique_ptr<char[]> grown(new (std::nothrow) char[capacity]);
  if (!grown) return fail("system_limit");
  std::memcpy(grown.get(), data_, size_);
  heap_ = std::move(grown);
  data_ = heap_.get();
  capacity_ = capacity;
  return true;
}

bool JsonWriter::put(char byte) noexcept {
  if (!reserve(1)) return false;
  data_[size_++] = byte;
  return true;
}

bool JsonWriter::append(std::string_view bytes) noexcept {
  if (!reserve(bytes.size())) return false;
  if (!bytes.empty()) std::memcpy(data_ + size_, bytes.data(), bytes.size());
  size_ += bytes.size();
  return true;
}

bool JsonWriter::open_value() noexcept {
  if (!error_.empty()) return false;
  if (depth_ == 0) {
    if (after_value_) return fail("misuse");
  } else if (is_object_[depth_ - 1]) {
    if (!after_key_) return fail("misuse");
    after_key_ = false;
  } else if (after_value_ && !put(',')) {
    return false;
  }
  after_value_ = true;
  return true;
}

bool JsonWriter::begin(bool object) noexcept {
  if (!open_value()) return false;
  if (depth_ == kJsonDepthMax) return fail("too_deep");
  if (!put(object ? '{' : '[')) return false;
  is_object_[depth_++] = object;
  after_value_ = false;
  return true;
}

bool JsonWriter::end() noexcept {
  if (!error_.empty()) return false;
  if (depth_ == 0 || after_key_) return fail("misuse");
  if (!put(is_object_[depth_ - 1] ? '}' : ']')) return false;
  --depth_;
  after_value_ = true;
  return true;
}

bool JsonWriter::key(std::string_view utf8) noexcept {
  if (!error_.empty()) return false;
  if (depth_ == 0 || !is_object_[depth_ - 1] || after_key_) {
    return fail("misuse");
  }
  if (after_value_ && !put(',')) return false;
  after_key_ = true;
  return quoted(utf8) && put(':');
}

bool JsonWriter::null() noexcept { return open_value() && append("null"); }

bool JsonWriter::boolean(bool value) noexcept {
  return open_value() && append(value ? "true" : "false");
}

bool JsonWriter::integer(std::int64_t value) noexcept {
  std::array<char, 24> text;
  const auto done = std::to_chars(text.begin(), text.end(), value);
  return open_value() && append({text.data(), static_cast<std::size_t>(
                                                  done.ptr - text.data())});
}

bool JsonWriter::unsigned_integer(std::uint64_t value) noexcept {
  std::array<char, 24> text;
  const auto done = std::to_chars(text.begin(), text.end(), value);
  return open_value() && append({text.data(), static_cast<std::size_t>(
                                                  done.ptr - text.data())});
}

bool JsonWriter::number(double value) noexcept {
  if (!error_.empty()) return false;
  if (!std::isfinite(value)) return fail("not_finite");
  const double magnitude = std::fabs(value);
  const bool fixed =
      magnitude == 0 || (magnitude >= kFixedMin && magnitude < kFixedEnd);
  std::array<char, 40> text;
  const auto done = std::to_chars(
      text.begin(), text.end(), value,
      fixed ? std::chars_format::fixed : std::chars_format::scientific);
  const std::string_view digits(
      text.data(), static_cast<std::size_t>(done.ptr - text.data()));
  if (!open_value() || !append(digits)) return false;
  const bool whole = fixed && digits.find('.') == std::string_view::npos;
  return !whole || append(".0");
}

bool JsonWriter::string(std::string_view utf8) noexcept {
  return open_value() && quoted(utf8);
}

bool JsonWriter::verbatim(std::string_view json_value) noexcept {
  return open_value() && append(json_value);
}

bool JsonWriter::quoted(std::string_view utf8) noexcept {
  // Asked before the first byte is looked at: the length of a hopeless string
  // must cost nothing.
  if (room() < 2 || utf8.size() > room() - 2) return fail("too_large");
  const Traits traits = scan(utf8);
  if (!traits.ascii && !is_utf8(utf8)) return fail("invalid_utf8");
  if (!traits.plain) return put('"') && escaped(utf8) && put('"');
  if (!reserve(utf8.size() + 2)) return false;
  data_[size_] = '"';
  if (!utf8.empty()) std::memcpy(data_ + size_ + 1, utf8.data(), utf8.size());
  data_[size_ + 1 + utf8.size()] = '"';
  size_ += utf8.size() + 2;
  return true;
}

bool JsonWriter::escaped(std::string_view utf8) noexcept {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::size_t from = 0;
  for (std::size_t at = 0; at < utf8.size(); ++at) {
    const auto byte = static_cast<std::uint8_t>(utf8[at]);
    if (needs_escape(byte) == 0) continue;
    const char letter = escape_letter(byte);
    std::array<char, 6> text = {'\\', letter, '0', '0', '0', '0'};
    if (letter == 'u') {
      text[4] = kHex[byte >> 4];
      text[5] = kHex[byte & 0x0F];
    }
    if (!append(utf8.substr(from, at - from)) ||
        !append({text.data(), letter == 'u' ? 6U : 2U})) {
      return false;
    }
    from = at + 1;
  }
  return append(utf8.substr(from));
}

}  // namespace webhooks
