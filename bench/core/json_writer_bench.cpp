// Purpose: the cost of writing a document. Each document gets a new writer, as
// in production, so the figure includes the writer's allocations. Bytes per
// second count the resulting JSON.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string_view>

#include "documents.hpp"
#include "webhooks/json_writer.hpp"

namespace {

using webhooks::JsonWriter;

template <class Write>
void measure(benchmark::State& state, Write write) {
  std::int64_t bytes = 0;
  for (auto _ : state) {
    JsonWriter writer;
    if (!write(writer)) {
      state.SkipWithError("not written");
      break;
    }
    benchmark::DoNotOptimize(writer.text().data());
    bytes += static_cast<std::int64_t>(writer.text().size());
  }
  state.SetBytesProcessed(bytes);
}

void goal_completed(benchmark::State& state) {
  measure(state, webhooks::bench::write_goal_completed);
}

void text(benchmark::State& state, std::string_view utf8) {
  measure(state, [utf8](JsonWriter& writer) { return writer.string(utf8); });
}

BENCHMARK(goal_completed);
BENCHMARK_CAPTURE(text, escapes_4KiB, webhooks::bench::text_with_escapes());
BENCHMARK_CAPTURE(text, utf8_200KiB, webhooks::bench::text_beyond_ascii());

}  // namespace
