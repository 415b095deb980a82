// Purpose: walks a document with simdjson's On-Demand iterators, without
// recursion, and does what those leave to the caller: literals, trailing
// content, depth; numbers and the places of faults are json_text.hpp's.
// Ownership: a padded copy of the document lives as long as the walk.
// Thread: any.
#include "webhooks/json_reader.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>
#include <new>

#include "core/json_text.hpp"
#include "webhooks/big_integer.hpp"

namespace webhooks {
namespace {

namespace od = simdjson::ondemand;
using Fault = std::optional<JsonFault>;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// The document is read as the only element of an array, "[" + json + "]".
// On-Demand has rules of its own for a scalar at the root (a limit on its
// digits, a null that is not checked to its end); inside an array there is
// only one set of rules, and "more than one element" is trailing content.
class Walk {
 public:
  Walk(std::string_view json, JsonEvents& events, std::size_t depth_max)
      : json_(json), events_(events), depth_max_(depth_max) {}

  Fault run();

 private:
  struct Frame {
    bool object = false;
    bool started = false;
    od::array_iterator elements{};
    od::object_iterator fields{};
  };

  Fault load();
  Fault step();
  Fault next_element(Frame& frame);
  Fault next_field(Frame& frame);
  Fault value(od::value& value);
  Fault scalar(std::string_view token);
  Fault number(std::string_view text);
  Fault open(od::value& value, std::size_t at, bool object);
  Fault close(const Frame& frame);
  Fault unexpected(std::size_t at) const noexcept;
  Fault separator_fault(const Frame& frame) const noexcept;

  std::size_t offset(const char* at) const noexcept {
    return static_cast<std::size_t>(at - text_);
  }
  std::size_t skip_space(std::size_t at) const noexcept {
    while (at < json_.size() && is_space(json_[at])) {
      ++at;
    }
    return at;
  }

  std::string_view json_;
  JsonEvents& events_;
  std::size_t depth_max_;
  std::unique_ptr<char[]> padded_;
  const char* text_ = nullptr;  // the document within padded_
  od::parser parser_;
  od::document document_;
  // The wrapping array is frame 0: `depth_` is the document's own depth + 1.
  std::array<Frame, kJsonDepthMax + 1> frames_;
  std::size_t depth_ = 0;
  // Offset of the token behind the last one that was taken.
  std::size_t cursor_ = 0;
};

Fault Walk::load() {
  const std::size_t size = json_.size() + 2;
  padded_.reset(new (std::nothrow) char[size + simdjson::SIMDJSON_PADDING]);
  if (!padded_) {
    return JsonFault{"system_limit", 0};
  }
  padded_[0] = '[';
  if (!json_.empty()) {
    std::memcpy(&padded_[1], json_.data(), json_.size());
  }
  padded_[size - 1] = ']';
  std::memset(&padded_[size], ' ', simdjson::SIMDJSON_PADDING);
  text_ = &padded_[1];
  const auto error =
      parser_.iterate(padded_.get(), size, size + simdjson::SIMDJSON_PADDING)
          .get(document_);
  if (error == simdjson::MEMALLOC) {
    return JsonFault{"system_limit", 0};
  }
  if (error != simdjson::SUCCESS) {
    return first_pass_fault(json_);
  }
  od::array wrapper;
  if (document_.get_array().get(wrapper) != simdjson::SUCCESS ||
      wrapper.begin().get(frames_[0].elements) != simdjson::SUCCESS) {
    return unexpected(0);
  }
  cursor_ = skip_space(0);
  depth_ = 1;
  return std::nullopt;
}

Fault Walk::run() {
  if (Fault fault = load()) {
    return fault;
  }
  while (depth_ > 0) {
    if (Fault fault = step()) {
      return fault;
    }
  }
  return std::nullopt;
}

Fault Walk::step() {
  Frame& frame = frames_[depth_ - 1];
  return frame.object ? next_field(frame) : next_element(frame);
}

Fault Walk::next_element(Frame& frame) {
  const bool first = !frame.started;
  if (!first) {
    ++frame.elements;
  }
  if (!(frame.elements != od::array_iterator{})) {
    return close(frame);
  }
  od::value element;
  if ((*frame.elements).get(element) != simdjson::SUCCESS) {
    return separator_fault(frame);
  }
  if (depth_ == 1 && !first) {
    return JsonFault{"trailing_content", cursor_};
  }
  frame.started = true;
  return value(element);
}

Fault Walk::next_field(Frame& frame) {
  const bool first = !frame.started;
  if (!first) {
    ++frame.fields;
  }
  if (!(frame.fields != od::object_iterator{})) {
    return close(frame);
  }
  od::field field;
  if ((*frame.fields).get(field) != simdjson::SUCCESS) {
    return separator_fault(frame);
  }
  frame.started = true;
  const std::size_t quote = offset(field.key().raw()) - 1;
  std::string_view key;
  if (field.unescaped_key().get(key) != simdjson::SUCCESS) {
    return JsonFault{"invalid_escape", bad_escape_offset(json_, quote)};
  }
  events_.key(key);
  return value(field.value());
}

// A value is not followed by what must follow it, or (in an object) a key or
// its colon is missing. `cursor_` is where the last value ended; the rest is
// found by hand.
Fault Walk::separator_fault(const Frame& frame) const noexcept {
  std::size_t at = cursor_;
  if (depth_ == 1) {
    return JsonFault{"trailing_content", at};
  }
  if (!frame.object) {
    return unexpected(at);
  }
  if (frame.started) {
    if (at >= json_.size() || json_[at] != ',') {
      return unexpected(at);
    }
    at = skip_space(at + 1);
  }
  if (at >= json_.size() || json_[at] != '"') {
    return unexpected(at);
  }
  return unexpected(skip_space(string_end(json_, at)));
}

Fault Walk::unexpected(std::size_t at) const noexcept {
  if (at >= json_.size()) {
    return JsonFault{"unexpected_end", json_.size()};
  }
  return JsonFault{"unexpected_token", at};
}

Fault Walk::value(od::value& value) {
  const std::string_view token = value.raw_json_token();
  const std::size_t at = offset(token.data());
  // The closing bracket we added ends the last token at the latest.
  cursor_ = at + token.size();
  switch (token.empty() ? '\0' : token.front()) {
    case '[':
    case '{':
      return open(value, at, token.front() == '{');
    case '"': {
      std::string_view text;
      if (value.get_string().get(text) != simdjson::SUCCESS) {
        return JsonFault{"invalid_escape", bad_escape_offset(json_, at)};
      }
      events_.string(text);
      return std::nullopt;
    }
    default:
      return at < json_.size() ? scalar(trimmed(token)) : unexpected(at);
  }
}

Fault Walk::scalar(std::string_view token) {
  if (token == "null") {
    events_.null();
  } else if (token == "true" || token == "false") {
    events_.boolean(token == "true");
  } else if (!token.empty() && (token[0] == '-' || is_digit(token[0]))) {
    return number(token);
  } else {
    const bool word = !token.empty() && is_letter(token[0]);
    return JsonFault{word ? "invalid_literal" : "unexpected_token",
                     offset(token.data())};
  }
  return std::nullopt;
}

Fault Walk::number(std::string_view text) {
  const std::size_t at = offset(text.data());
  switch (number_kind(text)) {
    case NumberKind::invalid:
      return JsonFault{"invalid_number", at};
    case NumberKind::real: {
      const std::optional<double> real = real_value(text);
      if (!real) {
        return JsonFault{"number_too_large", at};
      }
      events_.number(*real);
      return std::nullopt;
    }
    case NumberKind::integer:
      break;
  }
  std::int64_t integer = 0;
  const auto parsed =
      std::from_chars(text.data(), text.data() + text.size(), integer);
  if (parsed.ec == std::errc{}) {
    events_.integer(integer);
    return std::nullopt;
  }
  const std::string_view digits = text.substr(text[0] == '-' ? 1 : 0);
  if (!magnitude_from_decimal(digits)) {
    return JsonFault{"number_too_large", at};
  }
  events_.big_integer(text);
  return std::nullopt;
}

Fault Walk::open(od::value& value, std::size_t at, bool object) {
  if (depth_ > depth_max_) {
    return JsonFault{"too_deep", at};
  }
  Frame& frame = frames_[depth_];
  frame.object = object;
  frame.started = false;
  if (object) {
    od::object fields;
    if (value.get_object().get(fields) != simdjson::SUCCESS ||
        fields.begin().get(frame.fields) != simdjson::SUCCESS) {
      return unexpected(at);
    }
    events_.begin_object();
  } else {
    od::array elements;
    if (value.get_array().get(elements) != simdjson::SUCCESS ||
        elements.begin().get(frame.elements) != simdjson::SUCCESS) {
      return unexpected(at);
    }
    events_.begin_array();
  }
  ++depth_;
  return std::nullopt;
}

// Only a bracket of the right kind ends a container, and it is at `cursor_`.
// The one we added is at the document's end.
Fault Walk::close(const Frame& frame) {
  const bool ours = cursor_ >= json_.size();
  if (depth_ == 1) {
    depth_ = 0;
    if (ours && frame.started) {
      return std::nullopt;
    }
    if (ours) {
      return JsonFault{"empty", cursor_};
    }
    if (frame.started) {
      return JsonFault{"trailing_content", cursor_};
    }
    return unexpected(cursor_);
  }
  if (ours) {
    return unexpected(cursor_);
  }
  --depth_;
  cursor_ = skip_space(cursor_ + 1);
  if (frame.object) {
    events_.end_object();
  } else {
    events_.end_array();
  }
  return std::nullopt;
}

class Nobody final : public JsonEvents {
 public:
  void null() override {}
  void boolean(bool) override {}
  void integer(std::int64_t) override {}
  void big_integer(std::string_view) override {}
  void number(double) override {}
  void string(std::string_view) override {}
  void key(std::string_view) override {}
  void begin_array() override {}
  void end_array() override {}
  void begin_object() override {}
  void end_object() override {}
};

}  // namespace

std::optional<JsonFault> read_json(std::string_view json, JsonEvents& events,
                                   const JsonReadLimits& limits) {
  if (json.size() > limits.bytes_max) {
    return JsonFault{"too_large", limits.bytes_max};
  }
  if (json.starts_with(kByteOrderMark)) {
    return JsonFault{"byte_order_mark", 0};
  }
  Walk walk(json, events, std::min(limits.depth_max, kJsonDepthMax));
  return walk.run();
}

std::optional<JsonFault> check_json(std::string_view json,
                                    const JsonReadLimits& limits) {
  Nobody nobody;
  return read_json(json, nobody, limits);
}

}  // namespace webhooks
