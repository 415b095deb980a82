// Purpose: reads one JSON document (RFC 8259 and nothing more) and reports its
// parts as events in the order of the text. simdjson's On-Demand parser finds
// tokens and unescapes strings.
// Ownership: the document belongs to the caller. Strings in events live until
// `read_json` returns.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "webhooks/json_limits.hpp"

namespace webhooks {

// Ignores everything unless overridden. In an object, `key` precedes every
// value.
class JsonEvents {
 public:
  JsonEvents() = default;
  JsonEvents(const JsonEvents&) = delete;
  JsonEvents& operator=(const JsonEvents&) = delete;
  virtual ~JsonEvents() = default;

  virtual void null() {}
  virtual void boolean(bool /*value*/) {}
  virtual void integer(std::int64_t /*value*/) {}
  virtual void number(double /*value*/) {}
  virtual void string(std::string_view /*utf8*/) {}
  virtual void key(std::string_view /*utf8*/) {}
  virtual void begin_array() {}
  virtual void end_array() {}
  virtual void begin_object() {}
  virtual void end_object() {}
};

// The first fault of a document. `reason` is one of a fixed set (static
// storage). `offset` is a byte of the document, or its length.
//
//   too_large            more than kJsonBytesMax, not read (offset: the limit)
//   byte_order_mark      U+FEFF in front; RFC 8259 forbids senders to add one
//   invalid_utf8         the first byte of the sequence, wherever it stands;
//                        every other fault is the first one in the text
//   empty                only white space
//   control_character    a byte below 0x20 inside a string
//   unclosed_string      the opening quote
//   invalid_escape       the backslash; also of an unpaired surrogate
//   invalid_literal      not true, false or null
//   invalid_number       the first byte of the number
//   number_out_of_range  an integer beyond 64 bits or a float beyond a double
//   unexpected_token     not allowed at this place
//   unexpected_end       the text ends too early
//   trailing_content     something follows the document
//   too_deep             the bracket that exceeds kJsonDepthMax
//   system_limit         out of memory (offset 0)
struct JsonFault {
  std::string_view reason;
  std::size_t offset = 0;
};

// Returns nullopt if the document is valid and `events` received all of it.
// After a fault `events` has received at most a beginning. Duplicate keys are
// reported as they come. `-0` is the integer 0, `-0.0` a negative zero.
std::optional<JsonFault> read_json(std::string_view json, JsonEvents& events);

}  // namespace webhooks
