#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/sample_moments.h"
#include "kernels/cuda/comoments.h"
#include "kernels/cuda/launch.h"
#include "kernels/sample_moments.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kColumns = 32, kRows = 8;  // threads of a block: a warp reads neighbouring columns
constexpr int kThreads = kColumns * kRows;
constexpr int64_t kChunk = 1024;   // rows of a block's sums
constexpr int64_t kBackward = 64;  // rows of a block of the way back

struct Moments {
  double n = 0, mean = 0, m2 = 0, m3 = 0;
  __device__ void merge(const Moments& o) {
    if (o.n == 0) return;
    merge_column(n, o.n, o.mean, o.m2, o.m3, mean, m2, m3);
    n += o.n;
  }
};

// The block's moments of its columns, in the threads of the first warp: eight warps' in their
// order.
__device__ Moments merged(const Moments& mine) {
  SHARED(Moments, all, [kRows][kColumns]);
  const int lane = threadIdx.x % kColumns, warp = threadIdx.x / kColumns;
  all[warp][lane] = mine;
  __syncthreads();
  Moments m;
  if (warp == 0)
    for (int r = 0; r < kRows; ++r) m.merge(all[r][lane]);
  return m;
}

// A block per kColumns columns (x) and chunk of rows (y). In double about the chunk's first row.
__global__ void __launch_bounds__(kThreads)
    collect_kernel(int64_t rows, int64_t width, const real* x, double* parts) {
  const int64_t j = int64_t(blockIdx.x) * kColumns + threadIdx.x % kColumns;
  const int64_t begin = int64_t(blockIdx.y) * kChunk, end = min(begin + kChunk, rows);
  Moments mine;
  if (j < width) {
    const double pilot = double(x[begin * width + j]);
    double first = 0, second = 0, third = 0;
#pragma unroll 4
    for (int64_t i = begin + threadIdx.x / kColumns; i < end; i += kRows) {
      const double y = double(x[i * width + j]) - pilot, y2 = y * y;
      first += y, second += y2, third += y2 * y;
    }
    const int64_t left = end - begin - int64_t(threadIdx.x / kColumns);
    mine.n = double(left > 0 ? (left + kRows - 1) / kRows : 0);
    if (mine.n > 0) {
      const double m = first / mine.n;
      mine.mean = pilot + m;
      mine.m2 = max(second - m * first, 0.0);
      mine.m3 = third - m * (3 * second - 2 * m * first);
    }
  }
  const Moments m = merged(mine);
  if (threadIdx.x >= kColumns || j >= width) return;
  double* const to = parts + int64_t(blockIdx.y) * 3 * width + j;
  to[0] = m.mean, to[width] = m.m2, to[2 * width] = m.m3;
}

// A block per kColumns columns: every warp merges a run of chunks, then one the runs.
__global__ void __launch_bounds__(kThreads)
    merge_chunks_kernel(int64_t rows, int64_t width, int64_t chunks, const double* parts,
                        double* state) {
  const int64_t j = int64_t(blockIdx.x) * kColumns + threadIdx.x % kColumns;
  const int64_t warp = threadIdx.x / kColumns;
  Moments mine;
  if (j < width)
    for (int64_t c = chunks * warp / kRows; c < chunks * (warp + 1) / kRows; ++c) {
      const double* from = parts + c * 3 * width + j;
      mine.merge({double(min(kChunk, rows - c * kChunk)), from[0], from[width], from[2 * width]});
    }
  const Moments m = merged(mine);
  if (blockIdx.x == 0 && threadIdx.x == 0) state[0] = double(rows);
  if (threadIdx.x >= kColumns || j >= width) return;
  state[1 + j] = m.mean, state[1 + width + j] = m.m2, state[1 + 2 * width + j] = m.m3;
}

__global__ void __launch_bounds__(kThreads)
    merge_products_kernel(int64_t width, const double* other, double* state) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x, j = at / width, l = at % width;
  const double a = state[0], b = other[0];
  if (at >= width * width || b == 0) return;
  const double *mean = state + 1, *mean2 = other + 1;
  state[1 + 3 * width + at] +=
      other[1 + 3 * width + at] + (mean2[j] - mean[j]) * (a * b / (a + b)) * (mean2[l] - mean[l]);
}
__global__ void __launch_bounds__(kThreads)
    merge_columns_kernel(int64_t width, const double* other, double* state) {
  const int64_t j = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (j >= width || other[0] == 0) return;
  double* const mean = state + 1 + j;
  const double* const mean2 = other + 1 + j;
  merge_column(state[0], other[0], mean2[0], mean2[width], mean2[2 * width], mean[0], mean[width],
               mean[2 * width]);
}
__global__ void merge_count_kernel(const double* other, double* state) { state[0] += other[0]; }

__global__ void __launch_bounds__(kThreads)
    statistics_kernel(int64_t width, int64_t correction, double floor, const double* state,
                      real* mean, real* variance, real* skewness, real* covariance) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const double n = state[0], divisor = moments_divisor(n, correction);
  if (covariance && at < width * width) covariance[at] = real(state[1 + 3 * width + at] / divisor);
  if (at >= width) return;
  const double m2 = state[1 + width + at], m3 = state[1 + 2 * width + at];
  if (mean) mean[at] = real(state[1 + at]);
  if (variance) variance[at] = real(m2 / divisor);
  if (skewness) skewness[at] = n > 0 ? real(skewness_of(n, m2, m3, floor)) : real(0);
}

struct Gradients {
  const real *mean, *variance, *skewness;
};

__global__ void __launch_bounds__(kThreads)
    backward_kernel(int64_t rows, int64_t width, int64_t correction, double floor, const real* x,
                    const double* state, Gradients d, real* dx) {
  const int64_t j = int64_t(blockIdx.x) * kColumns + threadIdx.x % kColumns;
  if (j >= width) return;
  const double n = state[0], mean = state[1 + j];
  const ColumnPull p =
      column_pull(n, state[1 + width + j], state[1 + 2 * width + j], moments_divisor(n, correction),
                  floor, d.mean ? double(d.mean[j]) : 0, d.variance ? double(d.variance[j]) : 0,
                  d.skewness ? double(d.skewness[j]) : 0);
  const int64_t begin = int64_t(blockIdx.y) * kBackward, end = min(begin + kBackward, rows);
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x / kColumns; i < end; i += kRows) {
    const double y = double(x[i * width + j]) - mean;
    dx[i * width + j] += real(p.shift + y * (p.slope + p.curve * y));
  }
}

unsigned blocks(int64_t n, int64_t each) { return unsigned(ceil_div<int64_t>(n, each)); }

// More chunks than a grid's y may have are no one's problem yet: 2^16 of kChunk rows.
int64_t chunk_count(const SampleMomentsShape& s) { return ceil_div<int64_t>(s.rows, kChunk); }

}  // namespace

size_t sample_moments_scratch_bytes(const Cuda& be, const SampleMomentsShape& s) {
  return carve_bytes<double>(chunk_count(s) * 3 * s.width) +
         (s.covariance ? comoments_scratch_bytes(be, s.rows, s.width) : 0);
}

void sample_moments_collect(const Cuda& be, const SampleMomentsShape& s, In x, MomentsState state,
                            Scratch scratch) {
  check_sample_moments_collect(s, x, state, scratch, sample_moments_scratch_bytes(be, s));
  const int64_t d = s.width, chunks = chunk_count(s);
  double* const parts = carve<double>(scratch, chunks * 3 * d);
  launch(be, collect_kernel, dim3(blocks(d, kColumns), unsigned(chunks)), kThreads, 0, s.rows, d,
         x.data(), parts);
  launch(be, merge_chunks_kernel, std::max(blocks(d, kColumns), 1u), kThreads, 0, s.rows, d, chunks,
         parts, state.data());
  if (s.covariance)
    comoments(be, s.rows, d, x.data(), state.data() + 1, state.data() + 1 + 3 * d, scratch);
}

void sample_moments_merge(const Cuda& be, const SampleMomentsShape& s, InMomentsState other,
                          MomentsState state) {
  check_moments_state(s, other);
  check_moments_state(s, state);
  if (s.covariance)
    launch(be, merge_products_kernel, blocks(s.width * s.width, kThreads), kThreads, 0, s.width,
           other.data(), state.data());
  launch(be, merge_columns_kernel, blocks(s.width, kThreads), kThreads, 0, s.width, other.data(),
         state.data());
  launch(be, merge_count_kernel, 1, 1, 0, other.data(), state.data());
}

void sample_moments_forward(const Cuda& be, const SampleMomentsShape& s, InMomentsState state,
                            Out mean, Out variance, Out skewness, Out covariance) {
  check_moments_state(s, state);
  check_sample_moments_statistics(s, mean, variance, skewness, covariance);
  const int64_t n = covariance.empty() ? s.width : s.width * s.width;
  launch(be, statistics_kernel, blocks(n, kThreads), kThreads, 0, s.width, s.correction,
         s.variance_floor, state.data(), pointer(mean), pointer(variance), pointer(skewness),
         pointer(covariance));
}

void sample_moments_backward(const Cuda& be, const SampleMomentsShape& s, In x,
                             InMomentsState state, In dmean, In dvariance, In dskewness,
                             In dcovariance, InOut dx, Scratch scratch) {
  check_sample_moments_backward(s, x, state, dmean, dvariance, dskewness, dcovariance, dx, scratch,
                                sample_moments_scratch_bytes(be, s));
  if (dx.empty()) return;
  launch(be, backward_kernel, dim3(blocks(s.width, kColumns), blocks(s.rows, kBackward)), kThreads,
         0, s.rows, s.width, s.correction, s.variance_floor, x.data(), state.data(),
         Gradients{pointer(dmean), pointer(dvariance), pointer(dskewness)}, pointer(dx));
  if (!dcovariance.empty())
    pull_rows(be, s.rows, s.width, s.correction, x.data(), state.data(), dcovariance.data(),
              dx.data());
}

}  // namespace decalign::inline DECALIGN_REAL
