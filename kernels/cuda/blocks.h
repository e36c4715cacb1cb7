// Where a block keeps the matrices that it works on: in shared memory or, if they are too large, in
// scratch, which is then cut among fewer blocks.
#pragma once

#include <algorithm>

#include "kernels/cuda/small_matrix.h"

namespace decalign::inline DECALIGN_REAL::small {

struct Blocks {
  size_t shared;
  int64_t doubles;  // of a block's
  int64_t count(const Cuda& be, int64_t wanted) const {
    return shared > 0 ? wanted : std::min<int64_t>(wanted, be.multiprocessors);
  }
  int64_t scratch(const Cuda& be, int64_t wanted) const {
    return shared > 0 ? 0 : doubles * count(be, wanted);
  }
};
inline Blocks blocks(int64_t doubles) {
  const size_t bytes = size_t(doubles) * sizeof(double);
  return {bytes <= kSharedBytes ? bytes : 0, doubles};
}

}  // namespace decalign::inline DECALIGN_REAL::small
