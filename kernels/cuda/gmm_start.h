// The rows at which a mixture's means start, chosen by a block.
#pragma once

#include "kernels/cuda/dropout_keep.h"
#include "kernels/cuda/gmm_steps.h"

namespace decalign::inline DECALIGN_REAL::gmm_steps {

struct Start {
  GmmInit init;
  uint64_t seed;
  const RandomState* random;

  __host__ __device__ bool drawn(int64_t batch, int64_t components) const {
    return batch >= components && init == GmmInit::kmeanspp;
  }
  __device__ uint64_t key() const { return seed + (random ? random->seed + random->step : 0); }
};

// One modality's rows [batch, row_stride], and room for k-means++ [2, batch].
struct StartRows {
  int batch, components, width, row_stride;
  const double* x;
  double* nearest;
};

// As the host does it, in float.
__device__ inline int32_t linspace_row(int n, int k, int i) {
  const float last = float(n - 1), step = k > 1 ? last / float(k - 1) : 0.0f;
  return __float2int_rn(i < k / 2 || k == 1 ? step * float(i) : last - step * float(k - 1 - i));
}

__device__ inline double uniform(uint64_t seed, uint32_t m, uint32_t k) {
  const uint4 word = device_philox({m, k, 0x6d6d67u, 0}, seed);
  return (double(word.x) + double(word.y) / 4294967296.0) / 4294967296.0;
}

struct Passing {
  int at;       // -1: the weights are all 0, or their sum is not finite
  double left;  // of the target before it
};

// Where the sum of `weight` passes target(its total), or the last positive one. Every warp finds it
// for itself: a lane sums a run of rows, an odd number, for the banks.
template <class F>
__device__ Passing passing(const double* weight, int n, F&& target_of) {
  const int lane = threadIdx.x % 32, run = (n + 31) / 32 | 1;
  const int begin = min(lane * run, n), end = min(begin + run, n);
  double mine = 0;
  // scattered: a run of rows a lane
  for (int i = begin; i < end; ++i) mine += weight[i];
  double sum = mine;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double below = __shfl_up_sync(0xffffffffu, sum, unsigned(offset));
    if (lane >= offset) sum += below;
  }
  const double total = __shfl_sync(0xffffffffu, sum, 31), target = target_of(total);
  const double before = __shfl_up_sync(0xffffffffu, sum, 1);
  if (!(total > 0 && isfinite(total))) return {-1, 0};
  const unsigned some = __ballot_sync(0xffffffffu, mine > 0);
  const unsigned beyond = __ballot_sync(0xffffffffu, mine > 0 && sum > target);
  const int chosen = beyond ? __ffs(int(beyond)) - 1 : 31 - __clz(int(some));
  int pick = -1;
  double left = target - (lane > 0 ? before : 0), at_pick = left;
  if (lane == chosen)
    for (int i = begin; i < end; ++i) {
      if (weight[i] <= 0) continue;
      pick = i;
      at_pick = left;
      if ((left -= weight[i]) < 0) break;
    }
  return {__shfl_sync(0xffffffffu, pick, chosen), __shfl_sync(0xffffffffu, at_pick, chosen)};
}

// The row at which the sum of `weight` passes u times its total; `otherwise` if they are all 0.
__device__ inline int weighted_row(const double* weight, int n, double u, int otherwise) {
  const int at = passing(weight, n, [u](double total) { return u * total; }).at;
  return at >= 0 ? at : otherwise;
}

// Any of n rows.
__device__ inline int any_row(double u, int n) { return int(min(int64_t(u * n), int64_t(n) - 1)); }

// One barrier per component: the distances alternate between two arrays.
__device__ inline void choose_kmeanspp(const StartRows& s, uint64_t seed, uint32_t m,
                                       int32_t* choice) {
  const int n = s.batch, lane = threadIdx.x % 32;
  int pick = 0;
  for (int k = 0; k < s.components; ++k) {
    const double u = uniform(seed, m, uint32_t(k));
    const int any = any_row(u, n);
    if (k == 0) {
      pick = any;
    } else {
      const double* const to = s.x + pick * s.row_stride;
      double* const nearest = s.nearest + k % 2 * n;
      const double* const before = s.nearest + (k + 1) % 2 * n;
      for (int i = threadIdx.x / 32; i < n; i += kWarps) {
        const double* const row = s.x + i * s.row_stride;
        double square = 0;
        for (int j = lane; j < s.width; j += 32) square += (row[j] - to[j]) * (row[j] - to[j]);
        square = warp_sum(square);
        if (lane == 0) nearest[i] = k == 1 ? square : min(before[i], square);
      }
      __syncthreads();
      pick = weighted_row(nearest, n, u, any);
    }
    if (threadIdx.x == 0) choice[k] = pick;
  }
}

// k mod n where there are fewer rows than components, else evenly spread rows.
__device__ inline void choose_evenly(int n, int components, int32_t* choice) {
  for (int k = threadIdx.x; k < components; k += kThreads)
    // scattered: K = 7 numbers, once a step
    choice[k] = n < components ? k % n : linspace_row(n, components, k);
}

__device__ inline void choose(const StartRows& s, const Start& start, uint32_t m, int32_t* choice) {
  if (start.drawn(s.batch, s.components)) return choose_kmeanspp(s, start.key(), m, choice);
  choose_evenly(s.batch, s.components, choice);
}

}  // namespace decalign::inline DECALIGN_REAL::gmm_steps
