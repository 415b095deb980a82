// Purpose: keeps NIFs out of OpenSSL and curl while the process exits. exit(3)
// runs OpenSSL's cleanup although other threads still execute NIFs (the BEAM
// does not wait for them), and an HMAC on freed tables is a SIGSEGV.
// Thread: any.
#pragma once

#include <utility>

#include "nif/nif_support.hpp"

namespace webhooks::nif {

// From atexit: admits nobody any more and waits up to `wait_ms` for those who
// are inside.
void close_exit_gate(int wait_ms) noexcept;

// Held while a call may touch OpenSSL or curl. False: the VM is exiting, touch
// nothing.
class GatePass {
 public:
  GatePass() noexcept;
  ~GatePass();
  GatePass(const GatePass&) = delete;
  GatePass& operator=(const GatePass&) = delete;
  explicit operator bool() const noexcept { return inside_; }

 private:
  bool inside_;
};

// guard() behind the gate.
template <class F>
ERL_NIF_TERM guard_gated(ErlNifEnv* env, F&& body) noexcept {
  const GatePass pass;
  return pass ? guard(env, std::forward<F>(body)) : make_error(env, "stopped");
}

}  // namespace webhooks::nif
