// Memory for arrays that a step reads from end to end: on huge pages where the system has them to
// give.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace decalign {

/// Uninitialised, 64-byte aligned. From 4 MB on it starts on a 2 MB page and the system is asked
/// for huge pages: few address translations, and times that do not depend on how scattered the
/// memory is. A refusal changes nothing.
inline std::byte* allocate_huge(size_t bytes) {
  constexpr size_t kPage = size_t(1) << 21;
  if (bytes < 2 * kPage)
    return static_cast<std::byte*>(::operator new(bytes, std::align_val_t(64)));
  auto* memory = static_cast<std::byte*>(::operator new(bytes, std::align_val_t(kPage)));
#ifdef __linux__
  (void)madvise(memory, bytes / kPage * kPage, MADV_HUGEPAGE);
#endif
  return memory;
}

inline void free_huge(std::byte* memory, size_t bytes) {
  constexpr size_t kPage = size_t(1) << 21;
  ::operator delete(memory, std::align_val_t(bytes < 2 * kPage ? 64 : kPage));
}

template <class T>
struct HugePageAllocator {
  using value_type = T;
  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}  // NOLINT: allocators convert
  T* allocate(size_t n) { return reinterpret_cast<T*>(allocate_huge(n * sizeof(T))); }
  void deallocate(T* p, size_t n) { free_huge(reinterpret_cast<std::byte*>(p), n * sizeof(T)); }
  bool operator==(const HugePageAllocator&) const { return true; }
};

template <class T>
using HugeVector = std::vector<T, HugePageAllocator<T>>;

}  // namespace decalign
