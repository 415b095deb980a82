#include "allocation_limit.hpp"

#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

thread_local std::size_t allocations_left = SIZE_MAX;

}  // namespace

// Every kind that ends in the operator delete below: ASan tells them apart.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (allocations_left == 0) {
    return nullptr;
  }
  if (allocations_left != SIZE_MAX) {
    --allocations_left;
  }
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(std::size_t size) {
  if (void* const memory = operator new(size, std::nothrow)) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace webhooks::test {

AllocationLimit::AllocationLimit(std::size_t allocations) {
  allocations_left = allocations;
}
AllocationLimit::~AllocationLimit() { allocations_left = SIZE_MAX; }

}  // namespace webhooks::test
