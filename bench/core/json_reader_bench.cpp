// Purpose: the cost of reading a document to its last byte, including the copy
// and the tables that the reader makes for each document.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

#include "documents.hpp"
#include "webhooks/json_reader.hpp"

namespace {

void document(benchmark::State& state, const std::string& json) {
  webhooks::JsonEvents ignored;
  for (auto _ : state) {
    const auto fault = webhooks::read_json(json, ignored);
    if (fault) {
      state.SkipWithError("not JSON");
      break;
    }
    benchmark::DoNotOptimize(fault);
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<std::int64_t>(json.size()));
}

BENCHMARK_CAPTURE(document, goal_completed, webhooks::bench::goal_completed());
BENCHMARK_CAPTURE(
    document, escapes_4KiB,
    webhooks::bench::quoted(webhooks::bench::text_with_escapes()));
BENCHMARK_CAPTURE(
    document, utf8_200KiB,
    webhooks::bench::quoted(webhooks::bench::text_beyond_ascii()));

}  // namespace
