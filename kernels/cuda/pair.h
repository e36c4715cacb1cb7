// A number in two reals in device code: see kernels/cpu/pair.h.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

/// high[i] + rest[i]; a null rest counts as zeros.
__device__ inline double pair_at(const real* high, const real* rest, int64_t i) {
  return rest ? double(high[i]) + double(rest[i]) : double(high[i]);
}

/// high[i] + rest[i] = value, as closely as they can; what a null rest would hold is lost.
__device__ inline void set_pair(double value, real* high, real* rest, int64_t i) {
  const real rounded = real(value);
  high[i] = rounded;
  if (rest) rest[i] = real(value - double(rounded));
}

}  // namespace decalign::inline DECALIGN_REAL
