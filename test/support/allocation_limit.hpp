// Purpose: makes memory run out at a chosen allocation.
// Thread: the limit is that of the thread that sets it.
#pragma once

#include <cstddef>

namespace webhooks::test {

// While an object of this type lives, this thread's allocations fail after the
// given number.
class AllocationLimit {
 public:
  explicit AllocationLimit(std::size_t allocations);
  ~AllocationLimit();
  AllocationLimit(const AllocationLimit&) = delete;
  AllocationLimit& operator=(const AllocationLimit&) = delete;
};

}  // namespace webhooks::test
