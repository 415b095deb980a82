// Any bytes as a document. simdjson's DOM, which has its own grammar check, and
// the scan for faults must agree with the verdict. What is accepted must
// survive being written and read again. A fault must lie within the document.
#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

#include "core/json_fault.hpp"
#include "json_echo.hpp"
#include "require.hpp"

using namespace webhooks_fuzz;

using webhooks_test::Echo;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view json = text_of(data, size);
  Echo first;
  const auto fault = webhooks::read_json(json, first);

  static simdjson::dom::parser parser;
  const bool dom_accepts =
      parser.parse(json.data(), json.size()).error() == simdjson::SUCCESS;
  const bool scan_accepts = !webhooks::find_json_fault(json);
  if (fault) {
    require(fault->offset <= size);
    require(!scan_accepts || fault->reason == "byte_order_mark");
    // The DOM allows more: a depth of 1024, unsigned integers, floats that are
    // too small and, in newer versions, a byte order mark.
    if (fault->reason != "too_deep" && fault->reason != "byte_order_mark" &&
        fault->reason != "number_out_of_range") {
      require(!dom_accepts);
    }
    return 0;
  }
  require(scan_accepts);
  // The DOM refuses exponents of very many digits.
  require(dom_accepts || json.find_first_of("eE") != std::string_view::npos);

  Echo second;
  require(!webhooks::read_json(first.writer.text(), second));
  require(second.writer.text() == first.writer.text());
  return 0;
}
