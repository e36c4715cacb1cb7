#include "kernels/carve.h"
#include "kernels/check/contrastive.h"
#include "kernels/contrastive.h"
#include "kernels/cuda/reduce.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kNormFloor = 1e-12, kSumFloor = 1e-8;
constexpr int kTile = 4;  // rows of a warp's tile, against as many others
// One block and launch up to so many products; beyond, a launch per phase.
constexpr int64_t kOneBlock = int64_t(1) << 19;
constexpr int kOneBlockThreads = 512, kThreads = 256;

struct Problem {
  int64_t batch, width;
  real inverse_temperature;
  const real* x;
  const int32_t* classes;
  real *value, *gradient;
  // Scratch: the unit rows [B, F], logits and their gradients [B, B], norms, and of every row its
  // loss and whether it has a positive.
  real *f, *logits, *dlogits;
  double *norm, *loss;
  int32_t* valid;
};

__device__ int warps() { return int(blockDim.x) / 32; }

// Unit rows, a warp each.
__device__ void normalize(const Problem& v, int lane, int warp) {
  const int64_t step = int64_t(gridDim.x) * warps();
  for (int64_t i = int64_t(blockIdx.x) * warps() + warp; i < v.batch; i += step) {
    const real* const x = v.x + i * v.width;
    double square = 0;
    for (int64_t t = lane; t < v.width; t += 32) square += double(x[t]) * double(x[t]);
    const double norm = sqrt(warp_sum(square)), scale = 1 / max(norm, kNormFloor);
    for (int64_t t = lane; t < v.width; t += 32) v.f[i * v.width + t] = real(double(x[t]) * scale);
    if (lane == 0) v.norm[i] = norm;
  }
}

// kTile x kTile logits of a warp: lanes share the width; lane / 2 ends with one product each.
__device__ void logit_tile(const Problem& v, int64_t row, int64_t other, int lane) {
  real sum[kTile * kTile] = {};
  const real *a[kTile], *b[kTile];
#pragma unroll
  for (int r = 0; r < kTile; ++r) {
    a[r] = v.f + min(row + r, v.batch - 1) * v.width;
    b[r] = v.f + min(other + r, v.batch - 1) * v.width;
  }
  for (int64_t t = lane; t < v.width; t += 32) {
    real bt[kTile];
#pragma unroll
    for (int c = 0; c < kTile; ++c) bt[c] = b[c][t];
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      const real at = a[r][t];
#pragma unroll
      for (int c = 0; c < kTile; ++c) sum[r * kTile + c] += at * bt[c];
    }
  }
  // Each step halves the sums a lane is in charge of.
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const int half = 8 >> step, offset = 16 >> step;
    const bool upper = lane & offset;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i >= half) break;
      const real send = upper ? sum[i] : sum[i + half], keep = upper ? sum[i + half] : sum[i];
      sum[i] = keep + __shfl_xor_sync(0xffffffffu, send, offset);
    }
  }
  const real dot = sum[0] + __shfl_xor_sync(0xffffffffu, sum[0], 1);
  const int64_t i = row + lane / 2 / kTile, j = other + lane / 2 % kTile;
  // scattered: rows of 4 x 4 results, 16 bytes each
  if (lane % 2 == 0 && i < v.batch && j < v.batch)
    v.logits[i * v.batch + j] = v.inverse_temperature * dot;
}

// Loss of row i and the gradient of its logits, not yet divided by the number of valid rows.
__device__ void row_loss(const Problem& v, int64_t i, int lane) {
  const int64_t n = v.batch;
  const real* const row = v.logits + i * n;
  const int32_t own = v.classes[i];
  real highest = row[0];
  for (int64_t j = lane; j < n; j += 32) highest = max(highest, row[j]);
  const double top = double(warp_max(highest));
  int positives = 0;
  double mass = 0, positive_sum = 0;
  for (int64_t j = lane; j < n; j += 32) {
    if (j == i) continue;
    const double l = double(row[j]) - top;
    mass += exp(l);
    if (v.classes[j] == own) ++positives, positive_sum += l;
  }
  positives = warp_sum(positives);
  mass = warp_sum(mass);
  positive_sum = warp_sum(positive_sum);
  const bool valid = positives > 0;
  for (int64_t j = lane; j < n; j += 32) {
    double g = valid && mass >= kSumFloor ? exp(double(row[j]) - top) / mass : 0;
    if (valid && v.classes[j] == own) g -= 1 / double(positives);
    v.dlogits[i * n + j] = j == i ? real(0) : real(g);
  }
  if (lane > 0) return;
  v.valid[i] = valid;
  v.loss[i] = valid ? log(max(mass, kSumFloor)) - positive_sum / double(positives) : 0;
}

// Blocks take tiles of rows; within one, warps share the logits and then the rows.
__device__ void losses(const Problem& v, int lane, int warp) {
  const int64_t tiles = (v.batch + kTile - 1) / kTile;
  const int64_t mine = (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x;
  for (int64_t u = warp; u < mine * tiles; u += warps())
    logit_tile(v, (blockIdx.x + u / tiles * gridDim.x) * kTile, u % tiles * kTile, lane);
  __syncthreads();
  for (int64_t u = warp; u < mine * kTile; u += warps()) {
    const int64_t i = (blockIdx.x + u / kTile * gridDim.x) * kTile + u % kTile;
    if (i < v.batch) row_loss(v, i, lane);
  }
}

// 32 columns of the gradient of kTile rows, in a warp.
__device__ void gradient_tile(const Problem& v, int64_t row, int64_t column, real scale, int lane) {
  const int64_t n = v.batch, t = column + lane;
  int64_t at[kTile];
  real sum[kTile] = {}, along[kTile] = {};
#pragma unroll
  for (int r = 0; r < kTile; ++r) at[r] = min(row + r, n - 1);
  for (int64_t first = 0; first < n; first += 32) {
    const int64_t j = first + lane;
    real weight[kTile];
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      // scattered: a transposed read of [B, B], which the caches hold
      weight[r] = j < n ? scale * (v.dlogits[at[r] * n + j] + v.dlogits[j * n + at[r]]) : real(0);
      if (j < n) along[r] += weight[r] * v.logits[at[r] * n + j];
    }
    const int count = int(min(int64_t(32), n - first));
#pragma unroll 4
    for (int k = 0; k < count; ++k) {
      const real f = t < v.width ? v.f[(first + k) * v.width + t] : real(0);
#pragma unroll
      for (int r = 0; r < kTile; ++r) sum[r] += __shfl_sync(0xffffffffu, weight[r], k) * f;
    }
  }
#pragma unroll
  for (int r = 0; r < kTile; ++r) {
    // f = x / max(|x|, floor): the part along x vanishes where the norm is not clamped.
    const real part = warp_sum(along[r]) / v.inverse_temperature;
    if (row + r >= n || t >= v.width) continue;
    const double norm = v.norm[row + r];
    const int64_t e = (row + r) * v.width + t;
    v.gradient[e] =
        real(1 / max(norm, kNormFloor)) * (sum[r] - (norm >= kNormFloor ? part * v.f[e] : real(0)));
  }
}

__device__ void value_and_gradient(const Problem& v, int lane, int warp) {
  int count = 0;
  for (int64_t i = lane; i < v.batch; i += 32) count += v.valid[i];
  count = warp_sum(count);
  const int64_t unit = int64_t(blockIdx.x) * warps() + warp;
  if (unit == 0) {
    double sum = 0;
    for (int64_t i = lane; i < v.batch; i += 32) sum += v.loss[i];
    sum = warp_sum(sum);
    if (lane == 0) *v.value = real(count > 0 ? sum / double(count) : 0);
  }
  if (!v.gradient) return;
  const real scale = count > 0 ? v.inverse_temperature / real(count) : real(0);
  const int64_t tiles = (v.batch + kTile - 1) / kTile;
  const int64_t units = tiles * ((v.width + 31) / 32);
  for (int64_t u = unit; u < units; u += int64_t(gridDim.x) * warps())
    gradient_tile(v, u % tiles * kTile, u / tiles * 32, scale, lane);
}

// Phases [first, last] of the loss: unit rows, losses, value and gradient. More than one only in a
// single block.
__global__ void __launch_bounds__(kOneBlockThreads, 1)
    phases_kernel(const __grid_constant__ Problem v, int first, int last) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (first == 0) normalize(v, lane, warp);
  if (first == 0 && last > 0) __syncthreads();
  if (first <= 1 && last >= 1) losses(v, lane, warp);
  if (first <= 1 && last > 1) __syncthreads();
  if (last == 2) value_and_gradient(v, lane, warp);
}

}  // namespace

size_t contrastive_scratch_bytes(const Cuda&, const ContrastiveShape& s) {
  return carve_bytes<real>(s.batch * s.width) + 2 * carve_bytes<real>(s.batch * s.batch) +
         2 * carve_bytes<double>(s.batch) + carve_bytes<int32_t>(s.batch);
}

void contrastive_forward(const Cuda& be, const ContrastiveShape& s, In features,
                         std::span<const int32_t> classes, Out value, Out gradient,
                         Scratch scratch) {
  check_contrastive(s, features, classes, value, gradient, scratch,
                    contrastive_scratch_bytes(be, s));
  const int64_t n = s.batch;
  Problem v{n,
            s.width,
            real(1 / s.temperature),
            features.data(),
            classes.data(),
            value.data(),
            pointer(gradient),
            carve<real>(scratch, n * s.width),
            carve<real>(scratch, n * n),
            carve<real>(scratch, n * n),
            carve<double>(scratch, n),
            carve<double>(scratch, n),
            carve<int32_t>(scratch, n)};
  const double products = 2.0 * double(n * n * s.width);
  if (n * n * s.width <= kOneBlock) {
    note_flops(2 * products);
    launch(be, phases_kernel, 1, kOneBlockThreads, 0, v, 0, 2);
    return;
  }
  const int64_t tiles = ceil_div<int64_t>(n, kTile), per_block = kThreads / 32;
  launch(be, phases_kernel, unsigned(ceil_div(n, per_block)), kThreads, 0, v, 0, 0);
  note_flops(products);
  launch(be, phases_kernel, unsigned(tiles), kThreads, 0, v, 1, 1);
  const int64_t units = tiles * ceil_div<int64_t>(s.width, 32);
  note_flops(products);
  launch(be, phases_kernel, unsigned(ceil_div(units, per_block)), kThreads, 0, v, 2, 2);
}

}  // namespace decalign::inline DECALIGN_REAL
