// The last of the blocks that leave parts of a sum in memory adds them up, in their order: one
// launch instead of two.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

/// True in every thread of the last of `blocks` blocks that count on `counter`, which is zero again
/// afterwards. What the others wrote to memory before is then to be read with load_part(). All
/// threads of the block take part; barriers before and after.
__device__ inline bool is_last_block(unsigned* counter, int blocks) {
  SHARED(unsigned, before, [1]);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the block's parts come before its count
    before[0] = atomicInc(counter, unsigned(blocks) - 1);  // wraps to zero
    __threadfence();                                       // the others' parts are read after it
  }
  __syncthreads();
  return before[0] + 1 == unsigned(blocks);
}

/// Past the first-level cache, which may hold what was there before another block wrote.
template <class T>
__device__ T load_part(const T* part) {
  return __ldcg(part);
}

}  // namespace decalign::inline DECALIGN_REAL
