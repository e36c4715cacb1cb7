// Sums within a warp and a block, in a fixed order.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

/// The sum over the warp's 32 lanes, in every lane. All lanes take part.
template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

template <class T>
__device__ T warp_max(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value = max(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/// The sum over a block of kThreads threads, in every thread. All threads take part; a barrier
/// before and after.
template <int kThreads, class T>
__device__ T block_sum(T value) {
  SHARED(T, warp_value, [kThreads / 32]);
  value = warp_sum(value);
  __syncthreads();  // warp_value may hold an earlier call's values
  if (threadIdx.x % 32 == 0) warp_value[threadIdx.x / 32] = value;
  __syncthreads();
  value = warp_value[0];
#pragma unroll
  for (int w = 1; w < kThreads / 32; ++w) value += warp_value[w];
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
