// Purpose: the limits of the JSON writer and the JSON reader.
#pragma once

#include <cstddef>

namespace webhooks {

// Bytes of one document: far more than a webhook's payload, and far less than
// would hurt the node.
inline constexpr std::size_t kJsonBytesMax = std::size_t{8} * 1024 * 1024;

// Nested arrays and objects; the outermost one counts.
inline constexpr std::size_t kJsonDepthMax = 128;

}  // namespace webhooks
