// MmdArithmetic::products: |u - v|^2 = |u|^2 + |v|^2 - 2 u v, and what a row is pulled by as
// P Z - (P 1) z, on tensor cores.
#include <algorithm>

#include "kernels/carve.h"
#include "kernels/cuda/mmd_products.h"
#include "kernels/cuda/reduce.h"

#ifndef DECALIGN_F64
namespace decalign::inline DECALIGN_REAL::two_sample {
namespace {

constexpr int kPilot = 1024;           // rows whose mean is the centre
constexpr int kFlush = 64;             // tiles whose sums are in float
constexpr double kFlopsOfKernel = 32;  // of a pair, beside its products
constexpr size_t kShared = size_t(2 * (kOwn + kOther) * kPitch) * sizeof(float);

__host__ __device__ inline int64_t tiles_of(int64_t rows) { return (rows + kOwn - 1) / kOwn; }

// Both samples about one centre, padded with zeros: x from row 0, y from row y_first on. Of every
// slice the gradient without what the rows themselves lose, which is `lost` times them.
struct Split {
  int64_t y_first, rows, columns;
  float *centre, *high, *low, *norm;
  double *gradient, *lost;

  explicit Split(const Samples& s)
      : y_first(tiles_of(s.x_rows) * kOwn),
        rows(y_first + tiles_of(s.y_rows) * kOwn),
        columns(std::max<int64_t>(ceil_div<int64_t>(s.width, kChunk), 1) * kChunk) {}
  __device__ Staged at(int64_t row, int64_t column) const {
    return {high + row * columns + column, low + row * columns + column};
  }
  size_t bytes(int slices) const {
    return carve_bytes<float>(columns) + 2 * carve_bytes<float>(rows * columns) +
           carve_bytes<float>(rows) + carve_bytes<double>(slices * rows * columns) +
           carve_bytes<double>(slices * rows);
  }
  void carve_from(Scratch scratch, int slices) {
    centre = carve<float>(scratch, columns);
    high = carve<float>(scratch, rows * columns);
    low = carve<float>(scratch, rows * columns);
    norm = carve<float>(scratch, rows);
    gradient = carve<double>(scratch, slices * rows * columns);
    lost = carve<double>(scratch, slices * rows);
  }
};

__device__ inline Tile tile_at(const Samples& s, const Split& z, int64_t first, int most) {
  const bool is_y = first >= z.y_first;
  const int64_t left = is_y ? s.y_rows - (first - z.y_first) : s.x_rows - first;
  return {first, int(max(min(left, int64_t(most)), int64_t(0))), is_y};
}

// A block per 32 columns: the mean of up to kPilot rows, evenly spaced.
__global__ void __launch_bounds__(kThreads) centre_kernel(Samples s, Split z) {
  SHARED(double, part, [kWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t(blockIdx.x) * 32 + lane, all = s.x_rows + s.y_rows;
  const int64_t rows = min(all, int64_t(kPilot));
  double sum = 0;
  for (int64_t r = warp; r < rows && column < s.width; r += kWarps) {
    const int64_t at = r * all / rows;
    sum += double(at < s.x_rows ? s.x[at * s.width + column]
                                : s.y[(at - s.x_rows) * s.width + column]);
  }
  part[warp][lane] = sum;
  __syncthreads();
  if (warp > 0) return;
  for (int w = 1; w < kWarps; ++w) sum += part[w][lane];
  z.centre[column] = column < s.width ? float(sum / double(rows)) : 0;
}

// A warp per padded row.
__global__ void __launch_bounds__(kThreads) split_kernel(Samples s, Split z) {
  const int lane = threadIdx.x % 32;
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const bool is_y = row >= z.y_first;
  const int64_t at = is_y ? row - z.y_first : row;
  const bool there = at < (is_y ? s.y_rows : s.x_rows);
  const float* const from = (is_y ? s.y : s.x) + at * s.width;
  double square = 0;
  for (int64_t j = lane; j < z.columns; j += 32) {
    const float v = there && j < s.width ? from[j] - z.centre[j] : 0;
    const float high = Product::rounded(v);
    z.high[row * z.columns + j] = high;
    z.low[row * z.columns + j] = Product::rounded(v - high);
    square += double(v) * double(v);
  }
  square = warp_sum(square);
  if (lane == 0) z.norm[row] = float(square);
}

// A block per kOwn rows (x), kChunk columns of their gradient (y) and slice of what they meet (z).
// Every pair is met from both sides, so that no sum crosses blocks.
__global__ void __launch_bounds__(kThreads, 2) products_kernel(Samples s, Split z, Sums to) {
  DYNAMIC_SHARED(float, memory);
  SHARED(Kernel, kernels, [kMost]);
  SHARED(float, own_norm, [kOwn]);
  SHARED(float, slope_sums, [kMost][kThreads]);
  SHARED(float, other_norm, [kOther]);
  const int lane = threadIdx.x % 32;
  const Staged own_rows{memory, memory + kOwn * kPitch},
      other_rows{memory + 2 * kOwn * kPitch, memory + (2 * kOwn + kOther) * kPitch};
  const Tile own = tile_at(s, z, int64_t(blockIdx.x) * kOwn, kOwn);
  const bool pull = (own.is_y ? s.dy : s.dx) != nullptr;
  if (blockIdx.y > 0 && !pull) return;
  const int64_t row = blockIdx.z * z.rows + own.first + row_of(0, 0);
  double* const gradient = z.gradient + row * z.columns + blockIdx.y * kChunk + 2 * (lane % 4);
  const int chunks = int(z.columns / kChunk);
  float* const slopes = s.dbandwidths && blockIdx.y == 0 ? &slope_sums[0][threadIdx.x] : nullptr;
  for (int l = 0; slopes && l < s.bandwidths; ++l) slopes[l * kThreads] = 0;
  set_kernels(s, 1.4426950408889634, kernels);
  own_norm[threadIdx.x] = z.norm[own.first + threadIdx.x];
  if (chunks == 1) stage(z.at(own.first, 0), z.columns, kOwn, own_rows);
  double value = 0, bandwidth = 0, pulled[kGroups][2] = {};  // bandwidth: of the lane's number
  Pulls total;
  bool flushed = false;
  // Tiles in `total`, more at first, so that blocks do not flush together.
  int waiting = kFlush - 1 - int(blockIdx.x) % kFlush;
  const bool idle = row_of(0, 0) - lane / 4 >= own.count;
  const int64_t of_x = ceil_div<int64_t>(s.x_rows, kOther);
  const int64_t tiles = of_x + ceil_div<int64_t>(s.y_rows, kOther);
  for (int64_t tile = blockIdx.z; tile < tiles; tile += s.slices) {
    const int64_t at = tile < of_x ? tile * kOther : z.y_first + (tile - of_x) * kOther;
    const Tile other = tile_at(s, z, at, kOther);
    Dots dot;
    for (int c = 1; c <= chunks; ++c) {  // the chunk of this block's gradient comes last
      const int64_t column = int64_t((int(blockIdx.y) + c) % chunks) * kChunk;
      __syncthreads();
      if (chunks > 1) stage(z.at(own.first, column), z.columns, kOwn, own_rows);
      stage(z.at(at, column), z.columns, kOther, other_rows);
      if (threadIdx.x < kOther) other_norm[threadIdx.x] = z.norm[at + threadIdx.x];
      __syncthreads();
      if (!idle) add_dots(own_rows.row(row_of(0, 0) - lane / 4), other_rows, dot);
    }
    if (idle) continue;
    const TileSums sums =
        weigh(kernels, s.bandwidths, own, other, own_norm, other_norm, dot, slopes);
    const double factor = s.factor(own.is_y, other.is_y);
    value += factor * double(sums.value);
    for (int l = 0; slopes && l < s.bandwidths; ++l) {
      const float all = warp_sum(slopes[l * kThreads]);
      slopes[l * kThreads] = 0;
      if (lane == l) bandwidth += factor * double(all);
    }
    if (!pull) continue;
#pragma unroll
    for (int i = 0; i < kGroups; ++i)
#pragma unroll
      for (int e = 0; e < 2; ++e) pulled[i][e] += factor * double(sums.pull[i][e]);
    add_pulls(dot, other_rows, float(factor), total);
    if (++waiting < kFlush && tile + s.slices < tiles) continue;
    flush(z.columns, !flushed, gradient, total);
    waiting = 0, flushed = true;
  }
  if (blockIdx.y > 0) return;
#pragma unroll
  for (int i = 0; i < kGroups; ++i)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      for (int offset = 1; offset < 4; offset *= 2)
        pulled[i][e] += __shfl_xor_sync(0xffffffffu, pulled[i][e], offset);
      if (lane % 4 == 0) z.lost[row + 16 * i + 8 * e] = pulled[i][e];
    }
  const int64_t part = int64_t(blockIdx.z) * gridDim.x + blockIdx.x;
  value = block_sum<kThreads>(value);
  if (threadIdx.x == 0) to.value[part] = value / 2;  // of both sides
  if (!slopes) return;
  SHARED(double, slope, [kWarps][32]);
  slope[threadIdx.x / 32][lane] = bandwidth;
  __syncthreads();
  if (int(threadIdx.x) >= s.bandwidths) return;
  for (int w = 1; w < kWarps; ++w) bandwidth += slope[w][lane];
  to.slope[part * s.bandwidths + threadIdx.x] = bandwidth / 2;
}

// dx or dy, whose rows begin at the padded row `first`.
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(Split z, int slices, int64_t first, int64_t n, int64_t width, float* to) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t row = first + i / width, at = row * z.columns + i % width;
  const double own = double(z.high[at]) + double(z.low[at]);
  double sum = 0;
  for (int slice = 0; slice < slices; ++slice)
    sum += z.gradient[slice * z.rows * z.columns + at] - z.lost[slice * z.rows + row] * own;
  to[i] = float(sum);
}

}  // namespace

int64_t products_blocks(const Samples& s) { return tiles_of(s.x_rows) + tiles_of(s.y_rows); }
size_t products_scratch_bytes(const Samples& s) { return Split(s).bytes(s.slices); }

void products(const Cuda& be, const Samples& s, const Sums& to, Scratch scratch) {
  Split z(s);
  z.carve_from(scratch, s.slices);
  launch(be, centre_kernel, unsigned(z.columns / 32), kThreads, 0, s, z);
  launch(be, split_kernel, unsigned(z.rows / kWarps), kThreads, 0, s, z);
  const bool pull = s.dx || s.dy;
  const dim3 grid(unsigned(products_blocks(s)), pull ? unsigned(z.columns / kChunk) : 1,
                  unsigned(s.slices));
  const double pairs = double(z.rows) * double(z.rows);
  note_flops(pairs * (kTf32 * 3 * 2 * double(z.columns) * (grid.y + (pull ? 1 : 0)) +
                      kFlopsOfKernel * grid.y));
  launch(be, products_kernel, grid, kThreads, kShared, s, z, to);
  const auto finish = [&](int64_t first, int64_t rows, float* dz) {
    const int64_t n = rows * s.width;
    if (dz)
      launch(be, gradient_kernel, unsigned(ceil_div<int64_t>(n, kThreads)), kThreads, 0, z,
             s.slices, first, n, s.width, dz);
  };
  finish(0, s.x_rows, s.dx);
  finish(z.y_first, s.y_rows, s.dy);
}

}  // namespace decalign::inline DECALIGN_REAL::two_sample
#endif
