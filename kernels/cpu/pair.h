// A number in two reals, where one would round away what matters.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// high[i] + rest[i]; an empty rest counts as zeros.
inline double pair_at(In high, In rest, size_t i) {
  return double(high[i]) + (rest.empty() ? 0 : double(rest[i]));
}

/// high[i] + rest[i] = value, as closely as they can; what an empty rest would hold is lost.
inline void set_pair(double value, Out high, Out rest, size_t i) {
  high[i] = real(value);
  if (!rest.empty()) rest[i] = real(value - double(high[i]));
}

}  // namespace decalign::inline DECALIGN_REAL
