// Purpose: reads one JSON document (RFC 8259, nothing more) and reports what it
// finds as events, in the order of the text. Tokens and strings are simdjson's
// (its On-Demand front end); everything it would leave unlooked at is looked
// at, so that a document without a fault is valid to the last byte.
// Ownership: the document stays the caller's; texts in events live until
// `read_json` returns.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "webhooks/json_limits.hpp"

namespace webhooks {

// What the reader tells. In an object every value has its `key` in front.
class JsonEvents {
 public:
  JsonEvents() = default;
  JsonEvents(const JsonEvents&) = delete;
  JsonEvents& operator=(const JsonEvents&) = delete;
  virtual ~JsonEvents() = default;

  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  virtual void integer(std::int64_t value) = 0;
  // Beyond 64 bits, below 2^4096: an optional minus, then digits.
  virtual void big_integer(std::string_view text) = 0;
  virtual void number(double value) = 0;
  virtual void string(std::string_view utf8) = 0;
  virtual void key(std::string_view utf8) = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
  virtual void begin_object() = 0;
  virtual void end_object() = 0;
};

struct JsonReadLimits {
  std::size_t bytes_max = kJsonBytesMax;
  std::size_t depth_max = kJsonDepthMax;
};

// `reason` is one of a fixed set (static storage); `offset` is the byte where
// it shows, at most the document's length.
//
//   empty               nothing but white space
//   byte_order_mark     U+FEFF in front: senders must not add one, and one that
//                       is let through in silence changes what was signed
//   invalid_utf8        the leading byte of the sequence
//   control_character   below U+0020, raw inside a string
//   unclosed_string     its opening quote
//   invalid_escape      the backslash; lone surrogates as well
//   invalid_literal     neither true nor false nor null
//   invalid_number      the number's first byte
//   number_too_large    a float beyond the largest double, an integer of 2^4096
//                       or more; a float too small for a double is 0.0
//   unexpected_token    something else belongs here
//   unexpected_end      the text ends too early
//   trailing_content    something follows the document
//   too_deep            the bracket that goes beyond `depth_max`
//   too_large           beyond `bytes_max`, not looked at (offset: the limit)
//   system_limit        out of memory (offset 0)
struct JsonFault {
  std::string_view reason;
  std::size_t offset = 0;
};

// nullopt: the document is valid and `events` has been told all of it. After a
// fault what `events` was told is a beginning at most. Duplicate keys are told
// as they come. `-0` is the integer 0, `-0.0` a negative zero.
std::optional<JsonFault> read_json(std::string_view json, JsonEvents& events,
                                   const JsonReadLimits& limits = {});

// Valid or not, with nobody listening.
std::optional<JsonFault> check_json(std::string_view json,
                                    const JsonReadLimits& limits = {});

}  // namespace webhooks
