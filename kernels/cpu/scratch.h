// Cuts the caller's work space into arrays.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

constexpr size_t scratch_size(int64_t elements, size_t element_bytes = sizeof(real)) {
  return (size_t(elements) * element_bytes + 63) / 64 * 64;
}

/// The next `elements` elements of `scratch`, 64-byte aligned. Sizes are checked by the caller.
inline real* carve(Scratch& scratch, int64_t elements) {
  real* p = reinterpret_cast<real*>(scratch.data());
  scratch = scratch.subspan(scratch_size(elements));
  return p;
}

}  // namespace decalign::inline DECALIGN_REAL
