// Cuts the caller's work space into arrays of any type.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

template <class T>
constexpr size_t carve_bytes(int64_t elements) {
  return (size_t(elements) * sizeof(T) + 63) / 64 * 64;
}

/// The next `elements` elements of `scratch`, 64-byte aligned. Sizes are checked by the caller.
template <class T>
T* carve(Scratch& scratch, int64_t elements) {
  T* p = reinterpret_cast<T*>(scratch.data());
  scratch = scratch.subspan(carve_bytes<T>(elements));
  return p;
}

}  // namespace decalign::inline DECALIGN_REAL
