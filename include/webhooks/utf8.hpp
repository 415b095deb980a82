// Purpose: says whether bytes are UTF-8, and where they stop being UTF-8.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace webhooks {

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view bytes) noexcept;

// Offset of the first sequence that is not UTF-8 (its leading byte); nullopt
// when there is none. Scalar: for the way into an error message.
std::optional<std::size_t> utf8_error_offset(std::string_view bytes) noexcept;

}  // namespace webhooks
