#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/mmd_two_sample.h"
#include "kernels/cuda/reduce.h"
#include "kernels/mmd_two_sample.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kSelect = 1024;
constexpr int kBits = 8, kBins = 1 << kBits;  // of a distance's bits that a pass decides

#ifdef DECALIGN_F64
using Bits = unsigned long long;
__device__ inline Bits bits_of(real x) { return Bits(__double_as_longlong(x)); }
#else
using Bits = unsigned;
__device__ inline Bits bits_of(real x) { return __float_as_uint(x); }
#endif

// A warp per pair of the chosen rows.
__global__ void __launch_bounds__(kThreads)
    distances_kernel(int64_t all, int64_t rows, int64_t x_rows, int64_t width, const real* x,
                     const real* y, real* distance) {
  const int64_t i = blockIdx.y, lane = threadIdx.x % 32;
  const int64_t j = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (j >= i) return;
  const auto row = [&](int64_t r) {
    const int64_t at = rows < all ? r * all / rows : r;
    return at < x_rows ? x + at * width : y + (at - x_rows) * width;
  };
  const real *a = row(i), *b = row(j);
  real sum = 0;
  for (int64_t t = lane; t < width; t += 32) sum += (a[t] - b[t]) * (a[t] - b[t]);
  sum = warp_sum(sum);
  if (lane == 0) distance[i * (i - 1) / 2 + j] = sum;
}

// The value of rank `rank`, kBits bits a pass from the highest: non-negative numbers are ordered as
// their bits are.
__global__ void __launch_bounds__(kSelect)
    select_kernel(int64_t n, int64_t rank, const real* distance, real* bandwidth) {
  SHARED(unsigned, count, [kBins]);
  SHARED(int, chosen, [1]);
  if (n == 0) {
    if (threadIdx.x == 0) *bandwidth = 1;
    return;
  }
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSelect) sum += double(distance[i]);
  sum = block_sum<kSelect>(sum);
  Bits known = 0;  // the bits above those that are counted
  for (int shift = 8 * int(sizeof(real)) - kBits; shift >= 0; shift -= kBits) {
    for (int b = threadIdx.x; b < kBins; b += kSelect) count[b] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kSelect) {
      const Bits bits = bits_of(distance[i]);
      if (((bits >> shift) >> kBits) == known) atomicAdd(&count[int((bits >> shift) % kBins)], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int b = 0;
      int64_t before = 0;
      while (b + 1 < kBins && before + int64_t(count[b]) <= rank) before += count[b++];
      chosen[0] = b;
      count[0] = unsigned(before);
    }
    __syncthreads();
    rank -= count[0];
    known = (known << kBits) + Bits(chosen[0]);
    __syncthreads();
  }
  // The one with these bits, or what stands for it.
  for (int64_t i = threadIdx.x; i < n; i += kSelect)
    if (known > 0 && bits_of(distance[i]) == known) *bandwidth = distance[i];
  if (known == 0 && threadIdx.x == 0) *bandwidth = sum > 0 ? real(sum / double(n)) : real(1);
}

}  // namespace

size_t mmd_median_scratch_bytes(const Cuda&, const MmdTwoSampleShape& s) {
  const int64_t rows = std::min(s.x_rows + s.y_rows, kMmdMedianRows);
  return carve_bytes<real>(rows * (rows - 1) / 2);
}

void mmd_median_bandwidth(const Cuda& be, const MmdTwoSampleShape& s, In x, In y, Out bandwidth,
                          Scratch scratch) {
  check_mmd_median(s, x, y, bandwidth, scratch, mmd_median_scratch_bytes(be, s));
  const int64_t all = s.x_rows + s.y_rows, rows = std::min(all, kMmdMedianRows);
  const int64_t pairs = rows * (rows - 1) / 2;
  real* const distance = carve<real>(scratch, pairs);
  launch(be, distances_kernel,
         dim3(unsigned(ceil_div<int64_t>(rows, kThreads / 32)), unsigned(rows)), kThreads, 0, all,
         rows, s.x_rows, s.width, x.data(), y.data(), distance);
  launch(be, select_kernel, 1, kSelect, 0, pairs, pairs > 0 ? (pairs - 1) / 2 : 0, distance,
         bandwidth.data());
}

}  // namespace decalign::inline DECALIGN_REAL
