// Any calls in any order with any arguments. What the writer calls complete
// must be JSON to another parser, within its limit; what it refuses must leave
// an error.
#include <simdjson.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "webhooks/json_reader.hpp"
#include "webhooks/json_writer.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    return rest_.empty() ? std::uint8_t{0}
                         : static_cast<std::uint8_t>(take(1).front());
  }
  std::string_view text() { return take(byte()); }
  std::uint64_t bits() {
    std::uint64_t value = 0;
    const std::string_view bytes = take(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }

 private:
  std::string_view take(std::size_t wanted) {
    const std::string_view front = rest_.substr(0, wanted);
    rest_.remove_prefix(front.size());
    return front;
  }

  std::string_view rest_;
};

bool call(webhooks::JsonWriter& writer, Input& input, bool& with_fragment) {
  switch (input.byte() % 11) {
    case 0:
      return writer.begin_object();
    case 1:
      return writer.begin_array();
    case 2:
    case 3:
      return writer.end();
    case 4:
      return writer.key(input.text());
    case 5:
      return writer.string(input.text());
    case 6:
      return writer.integer(static_cast<std::int64_t>(input.bits()));
    case 7:
      return writer.unsigned_integer(input.bits());
    case 8: {
      const std::uint64_t bits = input.bits();
      double value = 0;
      std::memcpy(&value, &bits, sizeof value);
      return writer.number(value);
    }
    case 9: {
      const std::string_view fragment = input.text();
      with_fragment = true;
      return webhooks::check_json(
                 fragment,
                 {writer.room(), webhooks::kJsonDepthMax - writer.depth()})
                 ? writer.null()
                 : writer.verbatim(fragment);
    }
    default:
      return writer.boolean((input.byte() & 1) != 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  Input input(data, size);
  // A limit within reach half of the time.
  const std::uint8_t choice = input.byte();
  const std::size_t bytes_max = choice < 128 ? choice : webhooks::kJsonBytesMax;
  webhooks::JsonWriter writer(bytes_max);
  bool with_fragment = false;
  while (!input.empty()) {
    const bool went_well = call(writer, input, with_fragment);
    require(went_well == writer.error().empty());
    require(writer.text().size() <= bytes_max);
    require(writer.depth() <= webhooks::kJsonDepthMax);
  }
  for (std::size_t i = writer.depth(); i > 0; --i) writer.end();
  if (!writer.complete()) return 0;
  require(!webhooks::check_json(writer.text()));
  // What the writer has made itself has no integers beyond 64 bits, which
  // simdjson's DOM would refuse; a fragment may have some.
  if (with_fragment) return 0;
  static simdjson::dom::parser parser;
  require(parser.parse(writer.text().data(), writer.text().size()).error() ==
          simdjson::SUCCESS);
  return 0;
}
