#include <algorithm>

#include "kernels/check/pooling.h"
#include "kernels/cuda/reduce.h"
#include "kernels/pooling.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kRows = 32;  // rows of dx per block

int64_t longest(const Rows& rows) {
  int64_t length = 0;
  for (int64_t s = 0; s < rows.sequences(); ++s) length = std::max(length, rows.length(s));
  return length;
}

// A block per sequence and 32 columns; a warp per row, a lane per column. Summed in double and
// rounded once, as on the CPU: moments and mixtures amplify what is lost here.
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const int64_t* first, int64_t width, const real* x, const real* mask, real* y) {
  SHARED(double, sums, [kWarps][32]);
  SHARED(double, counts, [kWarps]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t s = blockIdx.x, j = int64_t(blockIdx.y) * 32 + lane;
  const int64_t begin = first[s], end = first[s + 1];
  double sum = 0, count = 0;
#pragma unroll 4
  for (int64_t r = begin + warp; r < end; r += kWarps) {
    const real weight = mask ? mask[r] : real(1);
    const real value = j < width ? x[r * width + j] : real(0);
    count += double(weight);
    sum += weight != 0 ? double(weight) * double(value) : 0.0;  // what is masked may be NaN
  }
  sums[warp][lane] = sum;
  if (lane == 0) counts[warp] = count;
  __syncthreads();
  if (warp != 0 || j >= width) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane], count += counts[w];
  y[s * width + j] = real(sum / (count > 1 ? count : 1.0));
}

// A block per sequence and kRows of its rows. Every block counts its whole sequence.
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const int64_t* first, int64_t width, const real* mask, const real* dy,
                    real* dx) {
  const int64_t s = blockIdx.x, begin = first[s], end = first[s + 1];
  const int64_t row = begin + int64_t(blockIdx.y) * kRows;
  if (row >= end) return;
  double count = double(end - begin);
  if (mask) {
    count = 0;
    for (int64_t r = begin + threadIdx.x; r < end; r += kThreads) count += double(mask[r]);
    count = block_sum<kThreads>(count);
  }
  const double inverse = 1 / (count > 1 ? count : 1.0);
  const uint32_t columns = uint32_t(width),
                 elements = uint32_t(min(end - row, int64_t(kRows))) * columns;
  for (uint32_t e = threadIdx.x; e < elements; e += kThreads) {
    const uint32_t r = e / columns;
    const real weight = mask ? mask[row + r] : real(1);
    if (weight != 0)
      dx[row * width + e] += real(inverse * double(weight)) * dy[s * width + (e - r * columns)];
  }
}

// A warp per row of y, a lane per column.
__global__ void __launch_bounds__(kThreads)
    temporal_forward_kernel(const int64_t* from, const int64_t* to, int64_t width, const real* x,
                            real* y) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t s = blockIdx.x, i = int64_t(blockIdx.y) * kWarps + warp;
  const int64_t length = from[s + 1] - from[s], steps = to[s + 1] - to[s];
  if (i >= steps) return;
  const int64_t begin = i * length / steps, end = ceil_div((i + 1) * length, steps);
  for (int64_t j = lane; j < width; j += 32) {
    double sum = 0;
#pragma unroll 4
    for (int64_t t = begin; t < end; ++t) sum += double(x[(from[s] + t) * width + j]);
    y[(to[s] + i) * width + j] = length > 0 ? real(sum / double(end - begin)) : real(0);
  }
}

// A warp per row t of dx: the windows that hold t are floor(t n / L) .. ceil((t + 1) n / L), n of
// L steps, in the CPU's order.
__global__ void __launch_bounds__(kThreads)
    temporal_backward_kernel(const int64_t* from, const int64_t* to, int64_t width, const real* dy,
                             real* dx) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t s = blockIdx.x, t = int64_t(blockIdx.y) * kWarps + warp;
  const int64_t length = from[s + 1] - from[s], steps = to[s + 1] - to[s];
  if (t >= length) return;
  const int64_t begin = t * steps / length, end = ceil_div((t + 1) * steps, length);
  for (int64_t j = lane; j < width; j += 32) {
    real sum = dx[(from[s] + t) * width + j];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t window = ceil_div((i + 1) * length, steps) - i * length / steps;
      sum += real(1) / real(window) * dy[(to[s] + i) * width + j];
    }
    dx[(from[s] + t) * width + j] = sum;
  }
}

// Blocks of `rows` rows of every sequence.
dim3 grid(const Rows& rows, int64_t per_block) {
  return dim3(unsigned(rows.sequences()), unsigned(ceil_div(longest(rows), per_block)));
}

}  // namespace

void pooling_forward(const Cuda& be, const Rows& rows, int64_t width, In x, In mask, Out y) {
  check_pooling_forward(rows, width, x, mask, y);
  launch(be, forward_kernel,
         dim3(unsigned(rows.sequences()), unsigned(ceil_div<int64_t>(width, 32))), kThreads, 0,
         device_list(be, rows.first), width, x.data(), pointer(mask), y.data());
}

void pooling_backward(const Cuda& be, const Rows& rows, int64_t width, In mask, In dy, InOut dx) {
  check_pooling_backward(rows, width, mask, dy, dx);
  if (dx.empty()) return;
  launch(be, backward_kernel, grid(rows, kRows), kThreads, 0, device_list(be, rows.first), width,
         pointer(mask), dy.data(), dx.data());
}

void temporal_pooling_forward(const Cuda& be, const Rows& from, const Rows& to, int64_t width, In x,
                              Out y) {
  check_temporal_pooling_forward(from, to, width, x, y);
  if (y.empty()) return;
  launch(be, temporal_forward_kernel, grid(to, kWarps), kThreads, 0, device_list(be, from.first),
         device_list(be, to.first), width, x.data(), y.data());
}

void temporal_pooling_backward(const Cuda& be, const Rows& from, const Rows& to, int64_t width,
                               In dy, InOut dx) {
  check_temporal_pooling_backward(from, to, width, dy, dx);
  if (dx.empty()) return;
  launch(be, temporal_backward_kernel, grid(from, kWarps), kThreads, 0, device_list(be, from.first),
         device_list(be, to.first), width, dy.data(), dx.data());
}

}  // namespace decalign::inline DECALIGN_REAL
