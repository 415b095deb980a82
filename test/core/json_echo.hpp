// Purpose: writes the reader's events, so that a document that is read and
// written stays the same.
// Ownership: owns its writer.
// Thread: one.
#pragma once

#include "webhooks/json_reader.hpp"
#include "webhooks/json_writer.hpp"

namespace webhooks_test {

class Echo final : public webhooks::JsonEvents {
 public:
  void null() override { writer.null(); }
  void boolean(bool value) override { writer.boolean(value); }
  void integer(std::int64_t value) override { writer.integer(value); }
  void number(double value) override { writer.number(value); }
  void string(std::string_view utf8) override { writer.string(utf8); }
  void key(std::string_view utf8) override { writer.key(utf8); }
  void begin_array() override { writer.begin_array(); }
  void end_array() override { writer.end(); }
  void begin_object() override { writer.begin_object(); }
  void end_object() override { writer.end(); }

  webhooks::JsonWriter writer;
};

}  // namespace webhooks_test
