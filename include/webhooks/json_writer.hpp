// Purpose: writes one JSON document (RFC 8259) into a growable buffer, with a
// limit on its size and depth.
// Ownership: the writer owns its bytes. `text()` is a view into them.
// Thread: one at a time.
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

// Every call returns whether it succeeded. After a failure the document is
// incomplete, and the caller stops writing. The calls must form a document:
// one value, a key before each value of an object, an `end` for each `begin`.
//
// Errors: `invalid_utf8` (a string or key), `not_finite` (NaN or an infinity),
// `too_large`, `too_deep`, `system_limit` (out of memory).
class JsonWriter {
 public:
  explicit JsonWriter(std::size_t bytes_max = kJsonBytesMax) noexcept
      : bytes_max_(bytes_max) {}
  JsonWriter(const JsonWriter&) = delete;
  JsonWriter& operator=(const JsonWriter&) = delete;

  bool null() noexcept { return scalar("null"); }
  bool boolean(bool value) noexcept { return scalar(value ? "true" : "false"); }
  bool integer(std::int64_t value) noexcept;
  // Writes the shortest decimal that reads back as the same double. A whole
  // number keeps its ".0", so that readers with integers and floats get a
  // float.
  bool number(double value) noexcept;
  // Quotes UTF-8 and escapes only what RFC 8259 demands.
  bool string(std::string_view utf8) noexcept;

  bool begin_object() noexcept { return begin(true); }
  bool begin_array() noexcept { return begin(false); }
  bool key(std::string_view utf8) noexcept;
  // Closes the innermost array or object.
  bool end() noexcept;

  // The last failure; empty if there was none.
  std::string_view error() const noexcept { return error_; }
  // How many more bytes the limit allows.
  std::size_t room() const noexcept { return bytes_max_ - size_; }
  // Valid until the next call that writes.
  std::string_view text() const noexcept { return {data_, size_}; }

 private:
  bool fail(std::string_view reason) noexcept {
    error_ = reason;
    return false;
  }
  bool begin(bool object) noexcept;
  bool scalar(std::string_view text) noexcept;
  bool quoted(std::string_view utf8, bool is_key) noexcept;
  bool escaped(std::string_view utf8) noexcept;
  bool reserve(std::size_t more) noexcept {
    return more <= capacity_ - size_ || grow(more);
  }
  bool grow(std::size_t more) noexcept;
  // Both need reserved room.
  void put(char byte) noexcept { data_[size_++] = byte; }
  void put(std::string_view bytes) noexcept;

  // A webhook's body fits: the usual document needs no allocation.
  static constexpr std::size_t kInlineBytes = 4096;

  std::size_t bytes_max_;
  std::size_t size_ = 0;
  std::size_t capacity_ = std::min(kInlineBytes, bytes_max_);
  std::size_t depth_ = 0;
  bool comma_due_ = false;
  std::string_view error_;
  std::bitset<kJsonDepthMax> is_object_;  // of the open containers
  std::unique_ptr<char[]> heap_;
  std::array<char, kInlineBytes> inline_;  // not initialized, to save time
  char* data_ = inline_.data();
};

}  // namespace webhooks
