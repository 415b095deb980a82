#include "nif/nif_exit_gate.hpp"

#include <atomic>
#include <chrono>
#include <thread>

namespace webhooks::nif {
namespace {

// Bit 31: closed. The other bits count who is inside. No destructor: static
// destruction runs while other threads still read it.
constexpr std::uint32_t kClosed = 1U << 31;
std::atomic<std::uint32_t> gate{0};

}  // namespace

GatePass::GatePass() noexcept : inside_((gate.fetch_add(1) & kClosed) == 0) {
  if (!inside_) {
    gate.fetch_sub(1);
  }
}

GatePass::~GatePass() {
  if (inside_) {
    gate.fetch_sub(1);
  }
}

void close_exit_gate(int wait_ms) noexcept {
  gate.fetch_or(kClosed);
  for (int waited = 0; waited < wait_ms && (gate.load() & ~kClosed) != 0;
       ++waited) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace webhooks::nif
