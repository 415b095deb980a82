// A document of any shape with any arguments. What the writer completes must be
// JSON to another parser and within the limit. A refusal must leave an error.
#include <simdjson.h>

#include <bitset>
#include <cstring>
#include <string_view>

#include "require.hpp"
#include "webhooks/json_reader.hpp"
#include "webhooks/json_writer.hpp"

using namespace webhooks_fuzz;

namespace {

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

// A document of any shape, until the input ends or the writer refuses.
class Document {
 public:
  Document(webhooks::JsonWriter& writer, Input& input)
      : writer_(writer), input_(input) {}

  bool write() {
    bool ok = value();
    while (ok && depth_ > 0) {
      if (input_.empty() || input_.byte() % 4 == 0) {
        --depth_;
        ok = writer_.end();
      } else {
        ok = (!is_object_[depth_ - 1] || writer_.key(input_.text())) && value();
      }
    }
    return ok;
  }

 private:
  bool value() {
    switch (input_.byte() % 7) {
      case 0:
      case 1: {
        const bool object = input_.byte() % 2 == 0;
        if (!(object ? writer_.begin_object() : writer_.begin_array())) {
          return false;
        }
        is_object_[depth_++] = object;
        return true;
      }
      case 2:
        return writer_.string(input_.text());
      case 3:
        return writer_.integer(static_cast<std::int64_t>(input_.bits()));
      case 4: {
        const std::uint64_t bits = input_.bits();
        double value = 0;
        std::memcpy(&value, &bits, sizeof value);
        return writer_.number(value);
      }
      case 5:
        return writer_.null();
      default:
        return writer_.boolean((input_.byte() & 1) != 0);
    }
  }

  webhooks::JsonWriter& writer_;
  Input& input_;
  std::size_t depth_ = 0;
  std::bitset<webhooks::kJsonDepthMax> is_object_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  Input input(data, size);
  // A limit within reach half of the time.
  const std::uint8_t choice = input.byte();
  const std::size_t bytes_max = choice < 128 ? choice : webhooks::kJsonBytesMax;
  webhooks::JsonWriter writer(bytes_max);
  const bool ok = Document(writer, input).write();
  require(ok == writer.error().empty());
  require(writer.text().size() <= bytes_max);
  if (!ok) return 0;
  webhooks::JsonEvents ignored;
  require(!webhooks::read_json(writer.text(), ignored));
  static simdjson::dom::parser parser;
  require(parser.parse(writer.text().data(), writer.text().size()).error() ==
          simdjson::SUCCESS);
  return 0;
}
