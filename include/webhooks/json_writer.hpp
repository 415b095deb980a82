// Purpose: writes one JSON document (RFC 8259) into a growable buffer, byte by
// byte forward, with a limit on its size and depth. What it has written is
// JSON or the beginning of it, whatever it was given and in whatever order.
// Ownership: the writer owns its bytes; `text()` is a view into them.
// Thread: any, one at a time.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "webhooks/json_limits.hpp"

namespace webhooks {

// Every call returns whether it went well. The first failure is the last: what
// comes after it changes nothing, so a caller may write on and ask `error()`
// at the end.
//
// Errors: `invalid_utf8` (a string or key), `not_finite` (NaN or an infinity),
// `too_large`, `too_deep`, `system_limit` (out of memory), `misuse` (a value
// where a key belongs, a second document, an end without a begin ...).
class JsonWriter {
 public:
  explicit JsonWriter(std::size_t bytes_max = kJsonBytesMax) noexcept
      : bytes_max_(bytes_max) {}
  JsonWriter(const JsonWriter&) = delete;
  JsonWriter& operator=(const JsonWriter&) = delete;

  bool null() noexcept;
  bool boolean(bool value) noexcept;
  bool integer(std::int64_t value) noexcept;
  bool unsigned_integer(std::uint64_t value) noexcept;
  // The shortest decimal that reads back as the same double. Whole numbers keep
  // a ".0", so that a reader who tells floats from integers gets a float.
  bool number(double value) noexcept;
  // UTF-8 in, quoted and escaped out: only what RFC 8259 demands is escaped.
  bool string(std::string_view utf8) noexcept;
  // One complete JSON value that somebody else has already checked: copied as
  // it is, not looked at.
  bool verbatim(std::string_view json_value) noexcept;

  bool begin_object() noexcept { return begin(true); }
  bool begin_array() noexcept { return begin(false); }
  bool key(std::string_view utf8) noexcept;
  // Closes what was opened last.
  bool end() noexcept;

  // Empty while nothing went wrong.
  std::string_view error() const noexcept { return error_; }
  bool complete() const noexcept {
    return error_.empty() && depth_ == 0 && after_value_;
  }
  // Open arrays and objects.
  std::size_t depth() const noexcept { return depth_; }
  // How many more bytes the limit allows.
  std::size_t room() const noexcept { return bytes_max_ - size_; }
  // What is written so far; a whole document once `complete()`. Valid until
  // the next call that writes.
  std::string_view text() const noexcept { return {data_, size_}; }

 private:
  bool fail(std::string_view reason) noexcept;
  bool comma_is_due() const noexcept { return after_value_ && !after_key_; }
  bool value_may_stand() noexcept;
  void value_stands() noexcept;
  bool begin(bool object) noexcept;
  // A value whose text is what it is.
  bool scalar(std::string_view text) noexcept;
  bool quoted(std::string_view utf8, bool colon) noexcept;
  bool escaped(std::string_view utf8) noexcept;
  bool append(std::string_view bytes) noexcept;
  bool reserve(std::size_t more) noexcept {
    return more <= capacity_ - size_ || grow(more);
  }
  bool grow(std::size_t more) noexcept;
  // Into what is reserved.
  void put(char byte) noexcept { data_[size_++] = byte; }
  void put(std::string_view bytes) noexcept;

  // A webhook's body fits in here: no allocation for the usual document.
  static constexpr std::size_t kInlineBytes = 4096;

  std::size_t bytes_max_;
  std::size_t size_ = 0;
  std::size_t capacity_ = std::min(kInlineBytes, bytes_max_);
  std::size_t depth_ = 0;
  bool after_value_ = false;  // a comma is due before the next one
  bool after_key_ = false;    // the value of this key is due
  std::string_view error_;
  std::bitset<kJsonDepthMax> is_object_;  // of the containers that are open
  std::unique_ptr<char[]> heap_;
  std::array<char, kInlineBytes> inline_;  // left uninitialized on purpose
  char* data_ = inline_.data();
};

}  // namespace webhooks
