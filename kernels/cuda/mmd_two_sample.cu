#include <algorithm>

#include "kernels/carve.h"
#include "kernels/cuda/mmd_two_sample.h"
#include "kernels/cuda/reduce.h"
#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace two_sample;

constexpr int kThreads = 256;
constexpr int kTile = 64;   // rows on either side, and columns of a block's gradient
constexpr int kDepth = 32;  // columns of a distance in shared memory at a time
constexpr int kOwn = 4;     // a thread's rows and columns
constexpr int kFinish = 1024;

__host__ __device__ inline int64_t tiles_of(int64_t rows) { return (rows + kTile - 1) / kTile; }

// Rows of one sample.
struct Tile {
  const real* rows;
  int64_t first;  // counted through both samples
  int count;
  bool is_y;
};
__device__ inline Tile tile_at(const Samples& s, int64_t index) {
  const int64_t of_x = tiles_of(s.x_rows);
  const bool is_y = index >= of_x;
  const int64_t first = (is_y ? index - of_x : index) * kTile, rows = is_y ? s.y_rows : s.x_rows;
  return {(is_y ? s.y : s.x) + first * s.width, first + (is_y ? s.x_rows : 0),
          int(min(rows - first, int64_t(kTile))), is_y};
}

// Columns [begin, begin + kDepth) of a tile, turned: to[column][row]; zeros beyond the tile. The
// rows' places are turned by their column, so that neither side meets in a bank.
__device__ inline int turned(int column, int row) { return column * kTile + (row ^ column); }
__device__ void load_turned(const Tile& t, int64_t width, int64_t begin, real* to) {
  const int column = threadIdx.x % kDepth;
  for (int r = threadIdx.x / kDepth; r < kTile; r += kThreads / kDepth)
    to[turned(column, r)] =
        r < t.count && begin + column < width ? t.rows[r * width + begin + column] : real(0);
}

// Squared distances of the thread's rows from its columns of the other tile. Barriers within.
__device__ void distances(const Samples& s, const Tile& own, const Tile& other, real* a, real* b,
                          real (&distance)[kOwn][kOwn]) {
  const int down = threadIdx.x / 16, across = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < kOwn; ++i)
#pragma unroll
    for (int j = 0; j < kOwn; ++j) distance[i][j] = 0;
  for (int64_t begin = 0; begin < s.width; begin += kDepth) {
    __syncthreads();
    load_turned(own, s.width, begin, a);
    load_turned(other, s.width, begin, b);
    __syncthreads();
#pragma unroll 4
    for (int t = 0; t < kDepth; ++t) {
      real u[kOwn], v[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) u[i] = a[turned(t, down + 16 * i)];
#pragma unroll
      for (int j = 0; j < kOwn; ++j) v[j] = b[turned(t, across + 16 * j)];
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
          const real e = u[i] - v[j];
          distance[i][j] += e * e;
        }
    }
  }
}

// A block per tile of rows (x), kTile columns of their gradient (y) and slice of what they meet
// (z). Every pair is met from both sides, so that no sum crosses blocks; a tile's sums are in
// `real`, those over tiles in double.
template <bool kBandwidths>
__global__ void __launch_bounds__(kThreads) pairs_kernel(Samples s, Sums to, double* gradients) {
  DYNAMIC_SHARED(real, memory);
  SHARED(Kernel, kernels, [kMost]);
  real* const slope = memory;                             // [kTile][kTile + 1]
  real* const other_rows = memory + kTile * (kTile + 1);  // as two turned halves, or [row][column]
  const int down = threadIdx.x / 16, across = threadIdx.x % 16;
  const Tile own = tile_at(s, blockIdx.x);
  const int64_t tiles = tiles_of(s.x_rows) + tiles_of(s.y_rows),
                column = int64_t(blockIdx.y) * kTile;
  const int columns = int(min(int64_t(kTile), s.width - column));
  const bool pull = (own.is_y ? s.dy : s.dx) != nullptr;
  set_kernels(s, 1, kernels);
  double sum = 0, bandwidth_sum[kBandwidths ? kMost : 1] = {}, total[kOwn][kOwn] = {};
  for (int64_t index = blockIdx.z; index < tiles; index += s.slices) {
    const Tile other = tile_at(s, index);
    const double factor = s.factor(own.is_y, other.is_y);
    real distance[kOwn][kOwn];
    distances(s, own, other, other_rows, other_rows + kDepth * kTile, distance);
    __syncthreads();  // `slope` and the rows have been read
    real tile_sum = 0, tile_bandwidth[kBandwidths ? kMost : 1] = {};
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int row = down + 16 * i, mate = across + 16 * j;
        const bool there =
            row < own.count && mate < other.count && own.first + row != other.first + mate;
        real k = 0, pulled = 0;
#pragma unroll
        for (int l = 0; l < kMost; ++l) {
          if (l >= s.bandwidths) break;
          const Kernel kernel = kernels[l];
          k = kernel.square > 0 ? k * k : there ? exp(distance[i][j] * kernel.scale) : real(0);
          tile_sum += k * kernel.weight;
          pulled += k * kernel.slope;
          if (kBandwidths) tile_bandwidth[kBandwidths ? l : 0] += k * distance[i][j];
        }
        slope[row * (kTile + 1) + mate] = pulled;
      }
    sum += factor * double(tile_sum);
    if (kBandwidths)
#pragma unroll
      for (int l = 0; l < kMost; ++l)
        bandwidth_sum[kBandwidths ? l : 0] += factor * double(tile_bandwidth[kBandwidths ? l : 0]);
    if (!pull) continue;
    for (int i = threadIdx.x; i < kTile * kTile; i += kThreads) {
      const int r = i / kTile, c = i % kTile;
      other_rows[i] =
          r < other.count && c < columns ? other.rows[r * s.width + column + c] : real(0);
    }
    real mine[kOwn][kOwn], more[kOwn][kOwn] = {};
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int row = down + 16 * i, c = across + 16 * j;
        mine[i][j] =
            row < own.count && c < columns ? own.rows[row * s.width + column + c] : real(0);
      }
    __syncthreads();
#pragma unroll 4
    for (int r = 0; r < kTile; ++r) {
      real g[kOwn], z[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) g[i] = slope[(down + 16 * i) * (kTile + 1) + r];
#pragma unroll
      for (int j = 0; j < kOwn; ++j) z[j] = other_rows[r * kTile + across + 16 * j];
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j) more[i][j] += g[i] * (z[j] - mine[i][j]);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) total[i][j] += factor * double(more[i][j]);
  }
  if (pull) {
    double* const gradient = gradients + int64_t(blockIdx.z) * (s.x_rows + s.y_rows) * s.width;
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int row = down + 16 * i, c = across + 16 * j;
        if (row < own.count && c < columns)
          gradient[(own.first + row) * s.width + column + c] = total[i][j];
      }
  }
  if (blockIdx.y > 0) return;
  const int64_t part = int64_t(blockIdx.z) * gridDim.x + blockIdx.x;
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) to.value[part] = sum / 2;  // of both sides
  if (kBandwidths)
#pragma unroll
    for (int l = 0; l < kMost; ++l) {
      if (l >= s.bandwidths) break;
      const double all = block_sum<kThreads>(bandwidth_sum[kBandwidths ? l : 0]);
      if (threadIdx.x == 0) to.slope[part * s.bandwidths + l] = all / 2;
    }
}

// Block 0: the value; block 1 + l: the slope of bandwidth l.
__global__ void __launch_bounds__(kFinish)
    value_kernel(Samples s, int64_t parts, Sums from, real* value) {
  const int l = int(blockIdx.x) - 1;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < parts; i += kFinish)
    sum += l < 0 ? from.value[i] : from.slope[i * s.bandwidths + l];
  sum = block_sum<kFinish>(sum);
  if (threadIdx.x > 0) return;
  if (l >= 0) {
    const double b = double(s.bandwidth[l]);
    s.dbandwidths[l] = real(sum * double(s.weight[l]) / (2 * b * b));
    return;
  }
  for (int i = 0; i < s.bandwidths; ++i) {
    sum += s.factors.diagonal * double(s.weight[i]);
    if (!(s.bandwidth[i] > 0)) sum = double(NAN);
  }
  *value = real(sum);
}

__global__ void __launch_bounds__(kThreads)
    gradient_kernel(int64_t n, int64_t stride, int slices, const double* from, real* to) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  double sum = 0;
  for (int z = 0; z < slices; ++z) sum += from[z * stride + i];
  to[i] = real(sum);
}

struct Plan {
  Samples samples;
  bool products = false;
  int64_t blocks = 0;  // of a slice

  explicit Plan(const MmdTwoSampleShape& s)
      : samples{.x_rows = s.x_rows,
                .y_rows = s.y_rows,
                .width = s.width,
                .factors = two_sample_factors(s),
                .bandwidths = int(s.bandwidths)} {
#ifndef DECALIGN_F64
    products = s.arithmetic == MmdArithmetic::products;
    if (products) blocks = products_blocks(samples);
#endif
    if (!products) blocks = tiles_of(s.x_rows) + tiles_of(s.y_rows);
    // About a thousand blocks, however few rows there are.
    const int64_t most = std::max<int64_t>(blocks, 1);
    samples.slices = int(std::min({ceil_div<int64_t>(1024, most), most, int64_t(8)}));
  }
  int64_t parts() const { return samples.slices * blocks; }
  int64_t stride() const { return (samples.x_rows + samples.y_rows) * samples.width; }
  size_t bytes() const {
    const size_t sums =
        carve_bytes<double>(parts()) + carve_bytes<double>(parts() * samples.bandwidths);
#ifndef DECALIGN_F64
    if (products) return sums + products_scratch_bytes(samples);
#endif
    return sums + carve_bytes<double>(samples.slices * stride());
  }
};

void by_differences(const Cuda& be, const Plan& p, const Sums& sums, Scratch scratch) {
  const Samples& s = p.samples;
  const bool pull = s.dx || s.dy;
  double* const gradient = carve<double>(scratch, s.slices * p.stride());
  const dim3 grid(unsigned(p.blocks),
                  pull ? unsigned(std::max<int64_t>(ceil_div<int64_t>(s.width, kTile), 1)) : 1,
                  unsigned(s.slices));
  const size_t shared = size_t(kTile * (2 * kTile + 1)) * sizeof(real);
  note_flops((sizeof(real) / 4) * (pull ? 6 : 3) * double(s.x_rows + s.y_rows) *
             double(p.stride()));
  launch(be, s.dbandwidths ? pairs_kernel<true> : pairs_kernel<false>, grid, kThreads, shared, s,
         sums, gradient);
  const auto finish = [&](const double* from, int64_t n, real* to) {
    if (to)
      launch(be, gradient_kernel, unsigned(ceil_div<int64_t>(n, kThreads)), kThreads, 0, n,
             p.stride(), s.slices, from, to);
  };
  finish(gradient, s.x_rows * s.width, s.dx);
  finish(gradient + s.x_rows * s.width, s.y_rows * s.width, s.dy);
}

}  // namespace

size_t mmd_two_sample_scratch_bytes(const Cuda&, const MmdTwoSampleShape& s) {
  return Plan(s).bytes();
}

void mmd_two_sample_forward(const Cuda& be, const MmdTwoSampleShape& s, In x, In y, In bandwidths,
                            In weights, Out value, Out dx, Out dy, Out dbandwidths,
                            Scratch scratch) {
  check_mmd_two_sample(s, x, y, bandwidths, weights, value, dx, dy, dbandwidths, scratch,
                       mmd_two_sample_scratch_bytes(be, s));
  const bool none = s.x_rows == 0 || s.y_rows == 0;
  Plan p(s);
  p.samples.x = x.data(), p.samples.y = y.data();
  p.samples.bandwidth = bandwidths.data(), p.samples.weight = weights.data();
  p.samples.dx = pointer(dx), p.samples.dy = pointer(dy);
  p.samples.dbandwidths = pointer(dbandwidths);
  const Sums sums{carve<double>(scratch, p.parts()),
                  carve<double>(scratch, p.parts() * s.bandwidths)};
  if (none) {
    fill(be, 0, dx);
    fill(be, 0, dy);
  } else {
#ifndef DECALIGN_F64
    if (p.products) products(be, p.samples, sums, scratch);
#endif
    if (!p.products) by_differences(be, p, sums, scratch);
  }
  launch(be, value_kernel, 1 + unsigned(dbandwidths.size()), kFinish, 0, p.samples,
         none ? 0 : p.parts(), sums, value.data());
}

}  // namespace decalign::inline DECALIGN_REAL
