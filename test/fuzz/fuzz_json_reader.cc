// Any bytes as a document. The verdict must be that of simdjson's DOM, a parser
// with a grammar check of its own; what is accepted must survive being written
// and read again; and a fault must lie within the document.
#include <simdjson.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "webhooks/json_reader.hpp"
#include "webhooks/json_writer.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

class Echo final : public webhooks::JsonEvents {
 public:
  void null() override { writer.null(); }
  void boolean(bool value) override { writer.boolean(value); }
  void integer(std::int64_t value) override { writer.integer(value); }
  void big_integer(std::string_view text) override {
    big = true;
    writer.verbatim(text);
  }
  void number(double value) override { writer.number(value); }
  void string(std::string_view utf8) override { writer.string(utf8); }
  void key(std::string_view utf8) override { writer.key(utf8); }
  void begin_array() override { writer.begin_array(); }
  void end_array() override { writer.end(); }
  void begin_object() override { writer.begin_object(); }
  void end_object() override { writer.end(); }

  webhooks::JsonWriter writer;
  bool big = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  Echo first;
  const auto fault = webhooks::read_json(json, first);

  static simdjson::dom::parser parser;
  const bool dom_accepts =
      parser.parse(json.data(), json.size()).error() == simdjson::SUCCESS;
  if (fault) {
    require(fault->offset <= size);
    // What the DOM allows and we do not: depth up to 1024, and in newer
    // versions a byte order mark.
    if (fault->reason != "too_deep" && fault->reason != "byte_order_mark") {
      require(!dom_accepts);
    }
    return 0;
  }
  // What we allow and the DOM does not: integers beyond 64 bits, and floats too
  // small for a double or with an exponent of very many digits.
  const bool digits = json.find_first_of("eE") != std::string_view::npos;
  require(dom_accepts || first.big || digits);

  require(first.writer.complete());
  Echo second;
  require(!webhooks::read_json(first.writer.text(), second));
  require(second.writer.text() == first.writer.text());
  return 0;
}
