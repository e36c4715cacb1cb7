#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/coskewness.h"
#include "kernels/coskewness.h"
#include "kernels/cuda/reduce.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kOwn = 4;  // a thread's rows and columns of a tile
constexpr int kTile = 64, kDepth = 32;
constexpr int kStride = kTile + kOwn;  // of the centred rows, turned: [column][row]
constexpr int kFlat = 256;

struct alignas(16) Quad {
  real v[kOwn];
};
__device__ Quad quad(const real* p) { return *reinterpret_cast<const Quad*>(p); }

// Columns of the turned rows: whole tiles.
__host__ __device__ int padded(int d) { return int(ceil_div(d, kTile)) * kTile; }

// forms[j] [d, d] = the upper half of W_j, twice what is off its diagonal: y^T W_j y needs no more.
__global__ void __launch_bounds__(kFlat) symmetric_kernel(int64_t d, const real* w, real* forms) {
  const int64_t at = int64_t(blockIdx.x) * kFlat + threadIdx.x;
  if (at >= d * d * d) return;
  const int64_t j = at / (d * d), a = at / d % d, b = at % d;
  // scattered: the orders of three indices, once
  const auto part = [&](int64_t p, int64_t q, int64_t r) { return double(w[(p * d + q) * d + r]); };
  const double sum = a > b ? 0
                           : part(j, a, b) + part(j, b, a) + part(a, j, b) + part(a, b, j) +
                                 part(b, j, a) + part(b, a, j);
  forms[at] = real(a == b ? sum / 6 : sum / 3);
}

// y[column][row] = x - mean for kTile rows from `first`, zeros beyond. Eight columns by four rows a
// warp: a sector of each row, and no two lanes in a bank.
__device__ void load_turned(int64_t rows, int d, const real* x, const double* mean, int64_t first,
                            real* y) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  for (int part = warp; part < padded(d) / 8 * (kTile / 4); part += kThreads / 32) {
    const int j = part / (kTile / 4) * 8 + lane % 8, r = part % (kTile / 4) * 4 + lane / 8;
    const bool inside = j < d && first + r < rows;
    y[j * kStride + r] = inside ? real(double(x[(first + r) * d + j]) - mean[j]) : real(0);
  }
}

// sum += y^T form for kDepth rows of the form, staged [kDepth][kTile].
__device__ void add_products(const real* y, const real* form, int down, int across,
                             real (&sum)[kOwn][kOwn]) {
#pragma unroll 8
  for (int t = 0; t < kDepth; ++t) {
    const Quad u = quad(y + t * kStride + kOwn * down), v = quad(form + t * kTile + kOwn * across);
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) sum[i][j] += u.v[i] * v.v[j];
  }
}

// q_ij = y_i^T W_j y_i for a tile of rows and a j, a block each: into q [N, d] if there is one, and
// its sums over the rows, as they are and weighted by y_ij, into parts [2, d, tiles].
__global__ void __launch_bounds__(kThreads)
    form_kernel(int64_t rows, int d, const real* x, const double* mean, const real* forms, real* q,
                double* parts) {
  DYNAMIC_SHARED(real, y);
  SHARED(Quad, staged, [kDepth * kTile / kOwn]);
  SHARED(real, result, [kTile]);
  const int64_t tile = blockIdx.x / d, first = tile * kTile;
  const int own = int(blockIdx.x % d), down = int(threadIdx.x) / 16, across = int(threadIdx.x) % 16;
  const real* const form = forms + int64_t(own) * d * d;
  load_turned(rows, d, x, mean, first, y);
  real total[kOwn] = {};
  for (int left = 0; left < d; left += kTile) {
    real sum[kOwn][kOwn] = {};
    for (int top = 0; top < min(d, left + kTile); top += kDepth) {
      __syncthreads();
      for (int e = threadIdx.x; e < kDepth * kTile; e += kThreads) {
        const int a = top + e / kTile, b = left + e % kTile;
        staged[e / kOwn].v[e % kOwn] = a < d && b < d ? form[a * d + b] : real(0);
      }
      __syncthreads();
      add_products(y + top * kStride, staged[0].v, down, across, sum);
    }
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const Quad u = quad(y + (left + kOwn * across + j) * kStride + kOwn * down);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) total[i] += sum[i][j] * u.v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2)
      total[i] += __shfl_xor_sync(0xffffffffu, total[i], offset);
    if (across == 0) result[kOwn * down + i] = total[i];
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  double plain = 0, weighted = 0;
  for (int r = threadIdx.x; r < kTile && first + r < rows; r += 32) {
    if (q) q[(first + r) * d + own] = result[r];  // scattered: a column
    plain += double(result[r]);
    weighted += double(result[r]) * double(y[own * kStride + r]);
  }
  plain = warp_sum(plain);
  weighted = warp_sum(weighted);
  if (threadIdx.x > 0) return;
  const int64_t tiles = gridDim.x / d;
  parts[own * tiles + tile] = plain;
  parts[(d + own) * tiles + tile] = weighted;
}

// sums [2, d] of the tiles' parts, a block each.
__global__ void __launch_bounds__(kFlat)
    sum_kernel(int64_t tiles, const double* parts, double* sums) {
  double sum = 0;
  for (int64_t t = threadIdx.x; t < tiles; t += kFlat) sum += parts[blockIdx.x * tiles + t];
  sum = block_sum<kFlat>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The value, by the first block, and dx = 3 / N (q - mean of q), q in dx.
__global__ void __launch_bounds__(kFlat)
    finish_kernel(int64_t rows, int d, const double* sums, real* value, real* dx) {
  if (blockIdx.x == 0) {
    double sum = 0;
    for (int j = threadIdx.x; j < d && rows > 0; j += kFlat) sum += sums[d + j] / double(rows);
    sum = block_sum<kFlat>(sum);
    if (threadIdx.x == 0) value[0] = real(sum);
  }
  const int64_t at = int64_t(blockIdx.x) * kFlat + threadIdx.x;
  if (!dx || at >= rows * d) return;
  dx[at] = real(3 / double(rows) * (double(dx[at]) - sums[at % d] / double(rows)));
}

}  // namespace

size_t coskewness_scratch_bytes(const Cuda&, const CoskewnessShape& s) {
  const int64_t d = s.width;
  return carve_bytes<real>(d * d * d) +
         carve_bytes<double>(ceil_div<int64_t>(s.rows, kTile) * 2 * d) + carve_bytes<double>(2 * d);
}

void coskewness_forward(const Cuda& be, const CoskewnessShape& s, In x, In w,
                        std::span<const double> mean, Out value, Out dx, Scratch scratch) {
  check_coskewness(s, x, w, mean, value, dx, scratch, coskewness_scratch_bytes(be, s));
  const int d = int(s.width);
  const int64_t cube = s.width * s.width * s.width, tiles = ceil_div<int64_t>(s.rows, kTile);
  real* const forms = carve<real>(scratch, cube);
  double* const parts = carve<double>(scratch, tiles * 2 * d);
  double* const sums = carve<double>(scratch, 2 * d);
  if (s.rows > 0) {
    launch(be, symmetric_kernel, unsigned(ceil_div<int64_t>(cube, kFlat)), kFlat, 0, s.width,
           w.data(), forms);
    note_flops(double(s.rows) * double(cube));
    launch(be, form_kernel, unsigned(tiles * d), kThreads,
           size_t(padded(d)) * kStride * sizeof(real), s.rows, d, x.data(), mean.data(), forms,
           pointer(dx), parts);
    launch(be, sum_kernel, unsigned(2 * d), kFlat, 0, tiles, parts, sums);
  }
  launch(be, finish_kernel,
         unsigned(std::max<int64_t>(ceil_div<int64_t>(std::ssize(dx), kFlat), 1)), kFlat, 0, s.rows,
         d, sums, value.data(), pointer(dx));
}

}  // namespace decalign::inline DECALIGN_REAL
