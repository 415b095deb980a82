// Purpose: what writing a document costs. A writer is made for each one, as in
// life, so that what the longest has to allocate is counted. Bytes per second
// are those of the JSON that comes out.
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
