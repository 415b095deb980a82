// Purpose: memory that runs out at a chosen moment.
// Thread: the limit is that of the thread that sets it.
#pragma once

#include <cstddef>

namespace webhooks::test {

// While it lives, this thread's allocations fail after so many.
class AllocationLimit {
 public:
  explicit AllocationLimit(std::size_t allocations);
  ~AllocationLimit();
  AllocationLimit(const AllocationLimit&) = delete;
  AllocationLimit& operator=(const AllocationLimit&) = delete;
};

}  // namespace webhooks::test
