// Purpose: the limits that JSON writing and reading share.
// Ownership: constants.
// Thread: any.
#pragma once

#include <cstddef>

namespace webhooks {

// One document, written or read. Far above a webhook's payload, far below what
// would hurt the node.
inline constexpr std::size_t kJsonBytesMax = std::size_t{8} * 1024 * 1024;

// Arrays and objects inside each other; the outermost one is the first.
inline constexpr std::size_t kJsonDepthMax = 128;

}  // namespace webhooks
