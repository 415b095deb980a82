// Purpose: reports a finding of a fuzz target.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace webhooks_fuzz {

// libFuzzer keeps the input of a run that aborts.
inline void require(bool holds) {
  if (!holds) std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace webhooks_fuzz
