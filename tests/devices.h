// The devices that tests run on, and memory that all of them and the host can reach.
#pragma once

#include <vector>

#include "autograd/device.h"
#include "autograd/huge_pages.h"

namespace decalign::inline DECALIGN_REAL::test {

/// Every device that this program has: the CPU with one and two threads, and a GPU, twice, where
/// there is one; in the simulated build the simulated device alone, twice in float, once in double.
/// DECALIGN_REQUIRE_CUDA=1 makes a missing GPU the end of the program, DECALIGN_CUDA_ONLY=1 leaves
/// the CPU out where there is one.
const std::vector<Device>& devices();

/// The first of them that is not the host, or null.
const Device* gpu();

/// Waits for everything that was queued on any of them.
void wait();

/// Memory that the host and every device may read and write.
void* allocate_shared(size_t bytes);
void free_shared(void* memory, size_t bytes);

template <class T>
struct SharedAllocator {
  using value_type = T;
  SharedAllocator() = default;
  template <class U>
  SharedAllocator(const SharedAllocator<U>&) {}  // NOLINT: allocators convert
  T* allocate(size_t n) { return static_cast<T*>(allocate_shared(n * sizeof(T))); }
  void deallocate(T* p, size_t n) { free_shared(p, n * sizeof(T)); }
  bool operator==(const SharedAllocator&) const { return true; }
};

template <class T>
using Shared = std::vector<T, SharedAllocator<T>>;

/// A value that kernels can read, for the life of the program.
template <class T>
const T& on_devices(const T& value) {
  static std::vector<const T*>& kept = *new std::vector<const T*>;
  kept.push_back(new (allocate_shared(sizeof(T))) T(value));
  return *kept.back();
}

}  // namespace decalign::inline DECALIGN_REAL::test
