// Purpose: reads a document with simdjson's On-Demand parser and checks what
// that leaves to its caller: literals, numbers, depth, trailing content.
// Ownership: a padded copy of the document lives as long as the reader.
// Thread: any.
#include "webhooks/json_reader.hpp"

#include <simdjson.h>

#include <cstring>
#include <memory>
#include <new>

#include "core/ascii.hpp"
#include "core/json_fault.hpp"

namespace webhooks {
namespace {

namespace od = simdjson::ondemand;

// The document is read as the only element of an array, "[" + json + "]":
// On-Demand has other rules for a scalar at the root (a limit on its digits, no
// check of what follows null).
class Reader {
 public:
  enum class Outcome { kValid, kRefused, kNoMemory };

  Reader(std::string_view json, JsonEvents& events) noexcept
      : json_(json), events_(events) {}

  Outcome run();

 private:
  bool document();
  bool value(od::value& value, std::size_t depth);
  bool array(od::value& value, std::size_t depth);
  bool object(od::value& value, std::size_t depth);
  bool string(od::value& value);
  bool scalar(std::string_view token);

  std::string_view json_;
  JsonEvents& events_;
  std::unique_ptr<char[]> padded_;
  od::parser parser_;
  od::document document_;
};

Reader::Outcome Reader::run() {
  const std::size_t size = json_.size() + 2;
  const std::size_t capacity = size + simdjson::SIMDJSON_PADDING;
  padded_.reset(new (std::nothrow) char[capacity]);
  if (!padded_) {
    return Outcome::kNoMemory;
  }
  padded_[0] = '[';
  if (!json_.empty()) {
    std::memcpy(&padded_[1], json_.data(), json_.size());
  }
  padded_[size - 1] = ']';
  std::memset(&padded_[size], ' ', simdjson::SIMDJSON_PADDING);
  const auto error =
      parser_.iterate(padded_.get(), size, capacity).get(document_);
  if (error == simdjson::MEMALLOC) {
    return Outcome::kNoMemory;
  }
  return error == simdjson::SUCCESS && document() ? Outcome::kValid
                                                  : Outcome::kRefused;
}

bool Reader::document() {
  od::array wrapper;
  if (document_.get_array().get(wrapper) != simdjson::SUCCESS) {
    return false;
  }
  std::size_t count = 0;
  for (auto element : wrapper) {
    od::value inner;
    if (element.get(inner) != simdjson::SUCCESS || ++count > 1 ||
        !value(inner, 0)) {
      return false;
    }
  }
  // The wrapper may have ended at a bracket of the document's own.
  const char* next = nullptr;
  return count == 1 &&
         document_.current_location().get(next) == simdjson::OUT_OF_BOUNDS;
}

// Recursion is at most kJsonDepthMax deep. A level takes a fraction of a
// kilobyte, and the smallest stack of the VM's schedulers has 328 KiB.
// NOLINTNEXTLINE(misc-no-recursion)
bool Reader::value(od::value& value, std::size_t depth) {
  const std::string_view token = value.raw_json_token();
  switch (token.empty() ? '\0' : token.front()) {
    case '[':
      return depth < kJsonDepthMax && array(value, depth + 1);
    case '{':
      return depth < kJsonDepthMax && object(value, depth + 1);
    case '"':
      return string(value);
    default:
      return scalar(trim(token, " \t\r\n"));
  }
}

// NOLINTNEXTLINE(misc-no-recursion)
bool Reader::array(od::value& value, std::size_t depth) {
  od::array elements;
  if (value.get_array().get(elements) != simdjson::SUCCESS) {
    return false;
  }
  events_.begin_array();
  for (auto element : elements) {
    od::value inner;
    if (element.get(inner) != simdjson::SUCCESS || !this->value(inner, depth)) {
      return false;
    }
  }
  events_.end_array();
  return true;
}

// NOLINTNEXTLINE(misc-no-recursion)
bool Reader::object(od::value& value, std::size_t depth) {
  od::object fields;
  if (value.get_object().get(fields) != simdjson::SUCCESS) {
    return false;
  }
  events_.begin_object();
  for (auto entry : fields) {
    od::field field;
    std::string_view key;
    if (std::move(entry).get(field) != simdjson::SUCCESS ||
        field.unescaped_key().get(key) != simdjson::SUCCESS) {
      return false;
    }
    events_.key(key);
    if (!this->value(field.value(), depth)) {
      return false;
    }
  }
  events_.end_object();
  return true;
}

bool Reader::string(od::value& value) {
  std::string_view text;
  if (value.get_string().get(text) != simdjson::SUCCESS) {
    return false;
  }
  events_.string(text);
  return true;
}

// Numbers are not converted by simdjson: before 3.6.4 it reads
// 0.95000000000000000000 as 0.0276628 (simdjson/simdjson#2093).
bool Reader::scalar(std::string_view token) {
  struct Emit {
    JsonEvents& events;
    bool operator()(const JsonFault& /*fault*/) { return false; }
    bool operator()(std::nullptr_t) { return events.null(), true; }
    bool operator()(bool value) { return events.boolean(value), true; }
    bool operator()(std::int64_t value) { return events.integer(value), true; }
    bool operator()(double value) { return events.number(value), true; }
  };
  return std::visit(Emit{events_}, read_json_scalar(token));
}

}  // namespace

std::optional<JsonFault> read_json(std::string_view json, JsonEvents& events) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (json.size() > kJsonBytesMax) {
    return JsonFault{"too_large", kJsonBytesMax};
  }
  if (json.starts_with(kByteOrderMark)) {
    return JsonFault{"byte_order_mark", 0};
  }
  switch (Reader(json, events).run()) {
    case Reader::Outcome::kValid:
      return std::nullopt;
    case Reader::Outcome::kNoMemory:
      return JsonFault{"system_limit", 0};
    case Reader::Outcome::kRefused:
      break;
  }
  // The scan refuses whatever the reader refuses. Should they ever differ, the
  // document is still refused.
  return find_json_fault(json).value_or(JsonFault{"unexpected_token", 0});
}

}  // namespace webhooks
