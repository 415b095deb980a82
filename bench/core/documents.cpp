// Purpose: the documents of documents.hpp.
// Ownership: static storage.
// Thread: one.
#include "documents.hpp"

#include <cstddef>

namespace webhooks::bench {
namespace {

bool pair(JsonWriter& writer, std::string_view key, std::string_view value) {
  return writer.key(key) && writer.string(value);
}

bool write_completion(JsonWriter& writer) {
  static const std::string note(102, 'x');
  return writer.begin_object() && pair(writer, "browser", "Firefox") &&
         pair(writer, "country", "EE") && pair(writer, "device", "Desktop") &&
         pair(writer, "event_name", "Signup") &&
         pair(writer, "hostname", "example.com") &&
         pair(writer, "occurred_at", "2026-11-23T10:15:30Z") &&
         pair(writer, "os", "GNU/Linux") &&
         pair(writer, "pathname", "/register/12345") && writer.key("props") &&
         writer.begin_object() && pair(writer, "note", note) &&
         pair(writer, "plan", "growth") && pair(writer, "seats", "12") &&
         writer.end() &&
         pair(writer, "referrer", "https://news.example/item?id=1") &&
         writer.key("revenue") && writer.begin_object() &&
         pair(writer, "amount", "49.00") && pair(writer, "currency", "EUR") &&
         writer.end() && pair(writer, "source", "News") && writer.key("utm") &&
         writer.begin_object() && pair(writer, "utm_medium", "web") &&
         pair(writer, "utm_source", "news") && writer.end() && writer.end();
}

std::string repeated(std::string_view part, std::size_t bytes_min) {
  std::string text;
  while (text.size() < bytes_min) {
    text.append(part);
  }
  return text;
}

}  // namespace

bool write_goal_completed(JsonWriter& writer) {
  return writer.begin_object() && writer.key("data") && writer.begin_object() &&
         writer.key("completion") && write_completion(writer) &&
         writer.key("goal") && writer.begin_object() && writer.key("id") &&
         writer.integer(12) && pair(writer, "name", "Signup") &&
         pair(writer, "type", "event") && writer.end() && writer.key("site") &&
         writer.begin_object() && pair(writer, "domain", "example.com") &&
         writer.end() && writer.end() &&
         pair(writer, "timestamp", "2026-11-23T10:15:30.123Z") &&
         pair(writer, "type", "goal.completed") && writer.end();
}

const std::string& goal_completed() {
  static const std::string document = [] {
    JsonWriter writer;
    return write_goal_completed(writer) ? std::string(writer.text())
                                        : std::string();
  }();
  return document;
}

const std::string& text_with_escapes() {
  static const std::string text =
      repeated("letters\nletters\"letters\\letters\t", std::size_t{4} * 1024);
  return text;
}

const std::string& text_beyond_ascii() {
  static const std::string text = repeated(
      "K\xC3\xB6\xC3\xB6k \xD0\xB8 \xE6\x97\xA5\xE6\x9C\xAC "
      "\xF0\x9F\x8E\x89 tea ",
      std::size_t{200} * 1024);
  return text;
}

std::string quoted(std::string_view text) {
  JsonWriter writer;
  writer.string(text);
  return std::string(writer.text());
}

}  // namespace webhooks::bench
