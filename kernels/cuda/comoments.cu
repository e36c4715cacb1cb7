#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/sample_moments.h"
#include "kernels/cuda/comoments.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kOwn = 4;  // a thread's rows and columns of a tile
constexpr int kTile = 64, kDepth = 32;
constexpr int64_t kSteps = 8;  // of kDepth rows, until reals are added up in double
constexpr int kFlat = 256;

struct Products {
  real v[kOwn][kOwn] = {};
};

// sum += a^T b, both [kDepth][kTile] in shared memory.
__device__ void add_products(const real* a, const real* b, Products& sum) {
  const int down = threadIdx.x / 16, across = threadIdx.x % 16;
#pragma unroll 8
  for (int t = 0; t < kDepth; ++t) {
    real u[kOwn], w[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) u[i] = a[t * kTile + down + 16 * i];
#pragma unroll
    for (int j = 0; j < kOwn; ++j) w[j] = b[t * kTile + across + 16 * j];
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) sum.v[i][j] += u[i] * w[j];
  }
}

// to[row][column] = x - mean: kDepth rows from `first` and kTile columns, zeros beyond.
__device__ void load_centred(int64_t end, int64_t d, const real* x, const double* mean,
                             int64_t first, int64_t column, real* to) {
  const int c = threadIdx.x % kTile;
  const int64_t j = column + c;
  const double centre = j < d ? mean[j] : 0;
  for (int r = threadIdx.x / kTile; r < kDepth; r += kThreads / kTile) {
    const int64_t i = first + r;
    to[r * kTile + c] = i < end && j < d ? real(double(x[i * d + j]) - centre) : real(0);
  }
}

// A block per pair of tiles of columns (x, y; the upper half) and part of the rows (z).
__global__ void __launch_bounds__(kThreads)
    products_kernel(int64_t rows, int64_t d, const real* x, const double* mean, double* parts) {
  if (blockIdx.x < blockIdx.y) return;
  SHARED(real, a, [kDepth * kTile]);
  SHARED(real, b, [kDepth * kTile]);
  const int64_t row = int64_t(blockIdx.y) * kTile, column = int64_t(blockIdx.x) * kTile;
  const int64_t end = rows * (blockIdx.z + 1) / gridDim.z;
  double total[kOwn][kOwn] = {};
  Products sum;
  int64_t steps = 0;
  for (int64_t i = rows * blockIdx.z / gridDim.z; i < end; i += kDepth) {
    __syncthreads();
    load_centred(end, d, x, mean, i, row, a);
    load_centred(end, d, x, mean, i, column, b);
    __syncthreads();
    add_products(a, b, sum);
    if (++steps % kSteps > 0 && i + kDepth < end) continue;
#pragma unroll
    for (int r = 0; r < kOwn; ++r)
#pragma unroll
      for (int c = 0; c < kOwn; ++c) total[r][c] += double(sum.v[r][c]), sum.v[r][c] = 0;
  }
  double* const to = parts + int64_t(blockIdx.z) * d * d;
#pragma unroll
  for (int i = 0; i < kOwn; ++i)
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t r = row + threadIdx.x / 16 + 16 * i, c = column + threadIdx.x % 16 + 16 * j;
      if (r < d && c < d) to[r * d + c] = total[i][j];
    }
}

__global__ void __launch_bounds__(kFlat)
    sum_kernel(int64_t d, int count, const double* parts, double* c) {
  const int64_t at = int64_t(blockIdx.x) * kFlat + threadIdx.x;
  if (at >= d * d) return;
  const int64_t i = min(at / d, at % d), j = max(at / d, at % d);
  double sum = 0;
  for (int p = 0; p < count; ++p) sum += parts[p * d * d + i * d + j];
  c[at] = sum;
}

// A block per tile of kTile rows (y) and columns (x) of dx.
__global__ void __launch_bounds__(kThreads)
    pull_kernel(int64_t rows, int64_t d, int64_t correction, const real* x, const double* state,
                const real* g, real* dx) {
  SHARED(real, a, [kDepth * (kTile + 1)]);  // centred rows, turned
  SHARED(real, b, [kDepth * kTile]);
  const int64_t row = int64_t(blockIdx.y) * kTile, column = int64_t(blockIdx.x) * kTile;
  const double scale = 1 / moments_divisor(state[0], correction);
  const int down = threadIdx.x / 16, across = threadIdx.x % 16;
  Products sum;
  for (int64_t k = 0; k < d; k += kDepth) {
    __syncthreads();
    for (int i = threadIdx.x; i < kDepth * kTile; i += kThreads) {
      const int64_t depth = k + i % kDepth, r = row + i / kDepth;
      a[i % kDepth * (kTile + 1) + i / kDepth] =
          r < rows && depth < d ? real(double(x[r * d + depth]) - state[1 + depth]) : real(0);
      const int64_t across_depth = k + i / kTile, c = column + i % kTile;
      b[i] = across_depth < d && c < d
                 ? real(scale * (double(g[across_depth * d + c]) + double(g[c * d + across_depth])))
                 : real(0);
    }
    __syncthreads();
#pragma unroll 8
    for (int t = 0; t < kDepth; ++t)
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j)
          sum.v[i][j] += a[t * (kTile + 1) + down + 16 * i] * b[t * kTile + across + 16 * j];
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i)
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t r = row + down + 16 * i, c = column + across + 16 * j;
      if (r < rows && c < d) dx[r * d + c] += sum.v[i][j];
    }
}

// Parts of the rows: enough blocks, and no more memory than 32 of the result.
int64_t part_count(int64_t rows, int64_t d) {
  const int64_t tiles = ceil_div<int64_t>(d, kTile), pairs = tiles * (tiles + 1) / 2;
  return std::clamp<int64_t>(std::min(rows / 256, 528 / std::max<int64_t>(pairs, 1)), 1, 176);
}

}  // namespace

size_t comoments_scratch_bytes(const Cuda&, int64_t rows, int64_t d) {
  return carve_bytes<double>(part_count(rows, d) * d * d);
}

void comoments(const Cuda& be, int64_t rows, int64_t d, const real* x, const double* mean,
               double* c, Scratch scratch) {
  const int64_t count = part_count(rows, d);
  double* const parts = carve<double>(scratch, count * d * d);
  const unsigned tiles = unsigned(ceil_div<int64_t>(d, kTile));
  note_flops(double(rows) * double(d) * double(d));
  launch(be, products_kernel, dim3(tiles, tiles, unsigned(count)), kThreads, 0, rows, d, x, mean,
         parts);
  launch(be, sum_kernel, unsigned(ceil_div<int64_t>(d * d, kFlat)), kFlat, 0, d, int(count), parts,
         c);
}

void pull_rows(const Cuda& be, int64_t rows, int64_t d, int64_t correction, const real* x,
               const double* state, const real* g, real* dx) {
  note_flops(2 * double(rows) * double(d) * double(d));
  launch(be, pull_kernel,
         dim3(unsigned(ceil_div<int64_t>(d, kTile)), unsigned(ceil_div<int64_t>(rows, kTile))),
         kThreads, 0, rows, d, correction, x, state, g, dx);
}

}  // namespace decalign::inline DECALIGN_REAL
