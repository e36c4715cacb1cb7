#include "kernels/carve.h"
#include "kernels/check/mmd.h"
#include "kernels/cuda/pair.h"
#include "kernels/cuda/reduce.h"
#include "kernels/fill.h"
#include "kernels/mmd.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kRows = 4;     // per block, a warp each
constexpr int kTile = 32;    // rows that the block meets at a time, a lane each
constexpr int kChunk = 128;  // columns in shared memory, and of a block's gradient
constexpr int kItems = kChunk / 32;
constexpr int kThreads = 32 * kRows;
constexpr int kFlat = 256;  // threads per block of the element-wise way back

struct Sample {
  int64_t rows, batch, width;  // rows: M B
  const real *z, *rest;
};

// Columns [begin, begin + columns) of `count` rows, zeros up to a multiple of 32 columns and for
// rows beyond the last; a warp per row.
template <int kPitch>
__device__ void load_rows(const Sample& x, int64_t first, int count, int64_t begin, int columns,
                          double* to) {
  const int lane = threadIdx.x % 32;
  for (int r = threadIdx.x / 32; r < count; r += kRows) {
    const int64_t row = first + r, at = row * x.width + begin;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int t = lane + 32 * i;
      if (32 * i < columns)
        to[r * kPitch + t] = row < x.rows && t < columns ? pair_at(x.z, x.rest, at + t) : 0;
    }
  }
}

// A warp per row of the batch and kChunk columns of its gradient (blockIdx.y). Against every tile
// of rows: a lane per row for distance and kernel, then a lane per column for the gradient. In
// double: what shifts all rows alike cancels, and the bias before z sees only what is left.
// Each pair of rows is met from both sides, so that no sum crosses warps.
__global__ void __launch_bounds__(kThreads)
    rows_kernel(Sample x, double bandwidth, MmdWeights weights, double* row_value, real* gradient,
                real* gradient_rest) {
  SHARED(double, own, [kRows][kChunk]);
  SHARED(double, tile, [kTile][kChunk + 1]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = int64_t(blockIdx.x) * kRows, row = first + warp;
  const int64_t modality = row / x.batch;
  const int chunks = int((max(x.width, int64_t(1)) + kChunk - 1) / kChunk);
  double within = 0, between = 0, slope[kItems] = {};
  for (int64_t start = 0; start < x.rows; start += kTile) {
    double distance = 0, distance2 = 0;
    int columns = 0;
    for (int c = 1; c <= chunks; ++c) {  // the chunk of this block's gradient comes last
      const int64_t begin = int64_t((int(blockIdx.y) + c) % chunks) * kChunk;
      columns = int(min(int64_t(kChunk), x.width - begin));
      __syncthreads();
      load_rows<kChunk>(x, first, kRows, begin, columns, &own[0][0]);
      load_rows<kChunk + 1>(x, start, kTile, begin, columns, &tile[0][0]);
      __syncthreads();
#pragma unroll 4
      for (int t = 0; t < columns; t += 2) {  // an odd width is followed by a zero
        const double e = own[warp][t] - tile[lane][t], f = own[warp][t + 1] - tile[lane][t + 1];
        distance += e * e;
        distance2 += f * f;
      }
    }
    const int64_t other = start + lane;
    const bool same = other / x.batch == modality;
    const double k = other < x.rows ? exp((distance + distance2) * (-0.5 / bandwidth)) : 0;
    (same ? within : between) += k;
    if (!gradient) continue;
    const double g = k * ((same ? weights.within : weights.between) / -bandwidth);
    const int count = int(min(int64_t(kTile), x.rows - start));
    for (int b = 0; b < count; ++b) {
      const double gb = __shfl_sync(0xffffffffu, g, b);
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        if (32 * i < columns) slope[i] += gb * (own[warp][lane + 32 * i] - tile[b][lane + 32 * i]);
    }
  }
  if (row >= x.rows) return;
  if (blockIdx.y == 0) {
    const double value =
        0.5 * (weights.within * warp_sum(within) + weights.between * warp_sum(between));
    if (lane == 0) row_value[row] = value;
  }
  if (!gradient) return;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t t = int64_t(blockIdx.y) * kChunk + lane + 32 * i;
    if (t < x.width) set_pair(slope[i], gradient, gradient_rest, row * x.width + t);
  }
}

__global__ void __launch_bounds__(kFlat)
    value_kernel(int64_t rows, const double* row_value, real* value) {
  double sum = 0;
  for (int64_t r = threadIdx.x; r < rows; r += kFlat) sum += row_value[r];
  sum = block_sum<kFlat>(sum);
  if (threadIdx.x == 0) *value = real(sum);
}

__global__ void __launch_bounds__(kFlat)
    backward_kernel(int64_t n, const real* gradient, const real* gradient_rest, const real* dvalue,
                    real* dz, real* drest) {
  const int64_t i = int64_t(blockIdx.x) * kFlat + threadIdx.x;
  if (i >= n) return;
  const double slope = double(*dvalue) * pair_at(gradient, gradient_rest, i);
  set_pair(pair_at(dz, drest, i) + slope, dz, drest, i);
}

}  // namespace

size_t mmd_scratch_bytes(const Cuda&, const MmdShape& s) {
  return carve_bytes<double>(s.modalities * s.batch);
}

void mmd_forward(const Cuda& be, const MmdShape& s, In z, In rest, Out value, Out gradient,
                 Out gradient_rest, Scratch scratch) {
  check_mmd_forward(s, z, rest, value, gradient, gradient_rest, scratch, mmd_scratch_bytes(be, s));
  const bool none = s.modalities < 2 || s.batch == 0;
  const Sample x{none ? 0 : s.modalities * s.batch, s.batch, s.width, z.data(), pointer(rest)};
  double* const row_value = carve<double>(scratch, x.rows);
  if (none) {
    fill(be, 0, gradient);
    fill(be, 0, gradient_rest);
  } else {
    const dim3 grid(unsigned(ceil_div<int64_t>(x.rows, kRows)),
                    gradient.empty() ? 1 : unsigned(ceil_div<int64_t>(s.width, kChunk)));
    note_flops(kDouble * (gradient.empty() ? 3 : 6) * double(x.rows * x.rows * s.width));
    launch(be, rows_kernel, grid, kThreads, 0, x, s.bandwidth, mmd_weights(s), row_value,
           pointer(gradient), pointer(gradient_rest));
  }
  launch(be, value_kernel, 1, kFlat, 0, x.rows, row_value, value.data());
}

void mmd_backward(const Cuda& be, In gradient, In gradient_rest, In dvalue, InOut dz, InOut drest) {
  check_mmd_backward(gradient, gradient_rest, dvalue, dz, drest);
  const int64_t n = std::ssize(dz);
  launch(be, backward_kernel, unsigned(ceil_div<int64_t>(n, kFlat)), kFlat, 0, n, gradient.data(),
         pointer(gradient_rest), dvalue.data(), pointer(dz), pointer(drest));
}

}  // namespace decalign::inline DECALIGN_REAL
