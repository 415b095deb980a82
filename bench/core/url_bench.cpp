// Purpose: the cost of judging a URL, when a webhook is saved and before the
// engine gets its endpoint, and of judging an address when it is dialled.
#include <benchmark/benchmark.h>

#include <string_view>

#include "webhooks/address_policy.hpp"
#include "webhooks/url.hpp"

namespace {

// `reason` says why the address is refused; empty if it is allowed.
void check_url(benchmark::State& state, std::string_view text,
               std::string_view reason) {
  const webhooks::UrlPolicy policy;
  for (auto _ : state) {
    const auto url = webhooks::check_url(text, policy);
    if ((url.ok() ? std::string_view() : url.error().reason) != reason) {
      state.SkipWithError("judged otherwise");
      break;
    }
    benchmark::DoNotOptimize(url);
  }
}

void judge(benchmark::State& state, std::string_view text,
           std::string_view reason) {
  const webhooks::AddressPolicy policy;
  constexpr std::uint16_t kPort = 443;
  auto address = webhooks::IpAddress::parse(text);
  if (!address) {
    state.SkipWithError("no address");
    return;
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(*address);
    const auto refused = policy.judge(*address, kPort, {});
    if (refused.value_or("") != reason) {
      state.SkipWithError("judged otherwise");
      break;
    }
  }
}

BENCHMARK_CAPTURE(check_url, name, "https://hooks.example.com/in?token=a1b2c3",
                  "");
BENCHMARK_CAPTURE(check_url, international,
                  "https://b\xC3\xBC"
                  "cher.example.com/in?token=a1b2c3",
                  "");
BENCHMARK_CAPTURE(check_url, address, "https://8.8.8.8/in", "");
BENCHMARK_CAPTURE(check_url, refused, "https://169.254.169.254/latest",
                  "blocked_address");
BENCHMARK_CAPTURE(judge, public_v4, "8.8.8.8", "");
BENCHMARK_CAPTURE(judge, public_v6, "2606:4700::1111", "");
BENCHMARK_CAPTURE(judge, private_v4, "10.0.0.1", "private");
BENCHMARK_CAPTURE(judge, mapped_v4, "::ffff:8.8.8.8", "");

}  // namespace
