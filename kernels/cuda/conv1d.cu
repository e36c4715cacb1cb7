#include "kernels/carve.h"
#include "kernels/check/conv1d.h"
#include "kernels/cuda/conv1d_windows.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace conv;
using namespace gemm;

// Windows from this on get their weight turned first; below, it stays in the first-level cache.
constexpr int64_t kTurn = 512;
bool turns(const Conv1dShape& s) { return s.kernel > 1 && s.kernel * s.width > kTurn; }

int64_t depth_steps(const Conv1dShape& s) { return ceil_div<int64_t>(s.width, kDepth) * s.kernel; }

// Into how many sums of their own the depth is cut: enough blocks for the device, and sums short
// enough for their rounding errors.
int64_t splits(const Cuda& be, const Conv1dShape& s) {
  constexpr int64_t kWhole = 8, kLeast = 4, kMost = 16;  // steps
  const int64_t steps = depth_steps(s);
  if (steps <= kWhole) return 1;
  const int64_t tiles =
      std::max<int64_t>(ceil_div<int64_t>(most_rows(s), 64) * ceil_div<int64_t>(s.channels, 64), 1);
  return std::clamp(2 * be.multiprocessors / tiles, ceil_div(steps, kMost),
                    ceil_div(steps, kLeast));
}

// weight [channels, width, kernel] as [channels, kernel, width].
__global__ void __launch_bounds__(256)
    turn_kernel(const real* weight, int64_t width, int kernel, int64_t size, real* turned) {
  const int64_t e = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (e >= size) return;
  const int64_t window = width * kernel, l = e % window;
  turned[e] = weight[e - l + l % width * kernel + l / width];
}

struct Forward {
  Call call;
  int64_t stride, tap_stride;  // of the weight's columns and taps
  int split_steps;
  real* out;  // y, or the parts of the splits, `part` elements apart
  int64_t part;
  bool vector_x, vector_weight, vector_y;
};

template <class T>
__global__ void __launch_bounds__(kThreads, T::kBlocks)
    forward_kernel(const __grid_constant__ Forward f) {
  SHARED(Quad, memory, [T::kQuads]);
  SHARED(int64_t, window, [T::kRows]);
  const Call& call = f.call;
  const int across = int((call.channels + T::kColumns - 1) / T::kColumns);
  const int64_t row = int64_t(int(blockIdx.x) / across) * T::kRows;
  const int64_t column = int64_t(int(blockIdx.x) % across) * T::kColumns;
  const int rows = left(call.rows, row, T::kRows),
            columns = left(call.channels, column, T::kColumns);
  if (int(threadIdx.x) < T::kRows)
    window[threadIdx.x] = int(threadIdx.x) < rows ? window_of(call, row + threadIdx.x) : 0;
  __syncthreads();

  using A = Along<T::kRows>;
  using B = Along<T::kColumns>;
  const int all = int((call.width + kDepth - 1) / kDepth) * call.kernel;
  const int first = int(blockIdx.y) * f.split_steps, steps = min(all - first, f.split_steps);
  const real* from[A::kPasses];
#pragma unroll
  for (int i = 0; i < A::kPasses; ++i) from[i] = call.x + window[A::outer(i)] + A::depth();
  const int64_t w_row = call.width * call.kernel;
  const real* const w = call.weight + (column + B::outer(0)) * w_row + B::depth() * f.stride;
  const auto load_x = [&](int s, Pack(&pack)[A::kPasses]) {
    const int block = (first + s) / call.kernel, tap = (first + s) % call.kernel;
    const int64_t c = int64_t(block) * kDepth;
    const int depth = step_depth(call.width, block) - A::depth();
    // scattered: rows of 5 or 20 numbers (audio, vision) are no whole vectors; few bytes
#pragma unroll
    for (int i = 0; i < A::kPasses; ++i)
      pack[i] =
          load_pack(from[i] + tap * call.width + c, 1, A::outer(i) < rows ? depth : 0, f.vector_x);
  };
  const auto load_w = [&](int s, Pack(&pack)[B::kPasses]) {
    const int block = (first + s) / call.kernel, tap = (first + s) % call.kernel;
    const int64_t c = int64_t(block) * kDepth;
    const int depth = step_depth(call.width, block) - B::depth();
    // scattered: rows of 5 or 20 numbers (audio, vision) are no whole vectors; few bytes
#pragma unroll
    for (int i = 0; i < B::kPasses; ++i)
      pack[i] = load_pack(w + 16 * i * w_row + c * f.stride + tap * f.tap_stride, f.stride,
                          B::outer(i) < columns ? depth : 0, f.vector_weight);
  };
  Sum<T> sum;
  multiply<T, A, B>(
      memory, steps, load_x, load_w,
      [&](int s) { return step_depth(call.width, (first + s) / call.kernel); }, Nothing(), sum);
  real* const out = f.out + blockIdx.y * f.part + row * call.channels + column;
  for_quads(sum, [&](int r, int c, const real(&value)[4]) {
    if (r < rows && c < columns)
      store_quad(out + r * call.channels + c, value, columns - c, f.vector_y);
  });
}

// y = the splits' parts, added in their order.
__global__ void __launch_bounds__(256)
    add_splits_kernel(const real* parts, int64_t part, int count, int64_t size, real* y) {
  const int64_t e = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (e >= size) return;
  double total = 0;
#pragma unroll 8
  for (int s = 0; s < count; ++s) total += double(parts[s * part + e]);
  y[e] = real(total);
}

}  // namespace

size_t conv1d_scratch_bytes(const Cuda& be, const Conv1dShape& s) {
  const int64_t count = splits(be, s);
  const size_t forward = (turns(s) ? carve_bytes<real>(s.channels * s.width * s.kernel) : 0) +
                         (count > 1 ? carve_bytes<real>(count * most_rows(s) * s.channels) : 0);
  return std::max(forward, carve_bytes<real>(chunks(be, s).elements));
}

void conv1d_forward(const Cuda& be, const Conv1dShape& s, const Rows& rows, In x, In weight, Out y,
                    Scratch scratch) {
  check_conv1d_forward(s, rows, x, weight, y, scratch, conv1d_scratch_bytes(be, s));
  if (rows.modality_rows(s.modality) == 0 || s.channels == 0) return;
  Forward f{};
  f.call = make_call(be, s, rows, x, weight);
  f.stride = s.kernel, f.tap_stride = 1;
  if (turns(s)) {
    real* const turned = carve<real>(scratch, std::ssize(weight));
    launch(be, turn_kernel, unsigned(ceil_div<int64_t>(std::ssize(weight), 256)), 256, 0,
           weight.data(), s.width, int(s.kernel), std::ssize(weight), turned);
    f.call.weight = turned, f.stride = 1, f.tap_stride = s.width;
  }
  const int64_t wanted = splits(be, s), steps = depth_steps(s);
  f.split_steps = int(std::max<int64_t>(ceil_div(steps, wanted), 1));
  const int64_t count = std::max<int64_t>(ceil_div<int64_t>(steps, f.split_steps), 1);
  const int64_t size = f.call.rows * s.channels;
  real* const own = y.data() + rows.modality_begin(s.modality) * s.channels;
  f.part = size;
  f.out = count > 1 ? carve<real>(scratch, count * size) : own;
  f.vector_x = vectors(x.data(), s.width, s.width);
  f.vector_weight = f.stride == 1 && vectors(f.call.weight, s.width, s.width);
  f.vector_y = vectors(f.out, s.channels, s.channels);
  const auto tiles = [&](int64_t tile_rows, int64_t tile_columns) {
    return ceil_div(f.call.rows, tile_rows) * ceil_div(s.channels, tile_columns);
  };
  choose_tile(
      be, s.channels,
      [&](int64_t tile_rows, int64_t tile_columns) {
        return count * tiles(tile_rows, tile_columns);
      },
      [&]<class T>(T) {
        note_flops(2.0 * double(size * s.width * s.kernel));
        launch(be, forward_kernel<T>, dim3(unsigned(tiles(T::kRows, T::kColumns)), unsigned(count)),
               kThreads, 0, f);
      });
  if (count > 1)
    launch(be, add_splits_kernel, unsigned(ceil_div<int64_t>(size, 256)), 256, 0, f.out, size,
           int(count), size, own);
}

}  // namespace decalign::inline DECALIGN_REAL
