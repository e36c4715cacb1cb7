#include "kernels/carve.h"
#include "kernels/check/conv1d.h"
#include "kernels/cuda/conv1d_windows.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace conv;
using namespace gemm;

struct Backward {
  Call call;
  const real* dy;  // of the modality's first row
  real *dx, *parts;
  int data_blocks;
  int64_t chunk_rows, part_stride;
  bool vector_x, vector_dy, vector_weight, vector_dx;
};

// dx[b, s, i] += sum over taps u and channels j of dy[first(b) + s - u, j] w[j, i, u].
template <class T>
__device__ void data_block(const Backward& f, Quad* memory) {
  const Call& call = f.call;
  const int across = int((call.width + T::kColumns - 1) / T::kColumns);
  const int64_t row = int64_t(int(blockIdx.x) / across) * T::kRows;
  const int64_t column = int64_t(int(blockIdx.x) % across) * T::kColumns;
  const int rows = left(call.batch * call.steps, row, T::kRows);
  const int columns = left(call.width, column, T::kColumns);

  using A = Along<T::kRows>;
  using B = Across<T::kColumns, T::kPrecision>;
  int from[A::kPasses], step[A::kPasses], length[A::kPasses];  // from: tap 0's row of dy
#pragma unroll
  for (int i = 0; i < A::kPasses; ++i) {
    const int64_t r = row + min(A::outer(i), rows - 1), b = r / call.steps;
    step[i] = int(r % call.steps);
    length[i] = A::outer(i) < rows ? int(call.first[b + 1] - call.first[b]) : 0;
    from[i] = int(call.first[b] - call.first[0]) + step[i];
  }
  const real* const dy = f.dy + A::depth();
  const real* const w = call.weight + (column + B::outer()) * call.kernel;
  const auto load_dy = [&](int s, Pack(&pack)[A::kPasses]) {
    const int tap = s % call.kernel;
    const int64_t j = int64_t(s / call.kernel) * kDepth;
    const int depth = step_depth(call.channels, s / call.kernel) - A::depth();
#pragma unroll
    for (int i = 0; i < A::kPasses; ++i) {
      const bool inside = step[i] >= tap && step[i] - tap < length[i];
      pack[i] =
          load_pack(dy + (from[i] - tap) * call.channels + j, 1, inside ? depth : 0, f.vector_dy);
    }
  };
  const auto load_w = [&](int s, Pack(&pack)[B::kPasses]) {
    const int tap = s % call.kernel;
#pragma unroll
    for (int p = 0; p < B::kPasses; ++p) {
      const int64_t j = int64_t(s / call.kernel) * kDepth + B::depth(p);
      pack[p] = load_pack(w + j * call.width * call.kernel + tap, call.kernel,
                          j < call.channels ? columns - B::outer() : 0, f.vector_weight);
    }
  };
  Sum<T> sum;
  multiply<T, A, B>(
      memory, step_count(call.channels) * call.kernel, load_dy, load_w,
      [&](int s) { return step_depth(call.channels, s / call.kernel); }, Nothing(), sum);
  real* const dx = f.dx + row * call.width + column;
  for_quads(sum, [&](int r, int c, const real(&value)[4]) {
    if (r < rows && c < columns) add_quad(dx + r * call.width + c, value, columns - c, f.vector_dx);
  });
}

// What a chunk of rows adds to a tile of the weight gradient as [channels, (tap, column)].
template <class T>
__device__ void weight_block(const Backward& f, Quad* memory) {
  SHARED(int64_t, window, [kMostChunk]);
  const Call& call = f.call;
  const int64_t n = call.kernel * call.width;
  const int across = int((n + T::kColumns - 1) / T::kColumns);
  const int down = int((call.channels + T::kRows - 1) / T::kRows);
  int block = int(blockIdx.x) - f.data_blocks;
  const int64_t column = int64_t(block % across) * T::kColumns;
  block /= across;
  const int64_t row = int64_t(block % down) * T::kRows;
  const int64_t chunk = block / down, begin = chunk * f.chunk_rows;
  const int depth = left(call.rows, begin, int(f.chunk_rows));
  const int rows = left(call.channels, row, T::kRows), columns = left(n, column, T::kColumns);
  for (int r = int(threadIdx.x); r < depth; r += kThreads) window[r] = window_of(call, begin + r);
  __syncthreads();

  using A = Across<T::kRows, T::kPrecision>;
  using B = Across<T::kColumns, T::kPrecision>;
  const real* const dy = f.dy + begin * call.channels + row + A::outer();
  const real* const x = call.x + column + B::outer();
  const auto load_dy = [&](int s, Pack(&pack)[A::kPasses]) {
#pragma unroll
    for (int p = 0; p < A::kPasses; ++p) {
      const int r = s * kDepth + A::depth(p);
      pack[p] =
          load_pack(dy + r * call.channels, 1, r < depth ? rows - A::outer() : 0, f.vector_dy);
    }
  };
  const auto load_x = [&](int s, Pack(&pack)[B::kPasses]) {
#pragma unroll
    for (int p = 0; p < B::kPasses; ++p) {
      const int r = s * kDepth + B::depth(p);
      // scattered: rows of 5 numbers are no whole vectors; few bytes
      pack[p] = load_pack(x + (r < depth ? window[r] : 0), 1, r < depth ? columns - B::outer() : 0,
                          f.vector_x);
    }
  };
  Sum<T> sum;
  multiply<T, A, B>(
      memory, step_count(depth), load_dy, load_x, [&](int s) { return step_depth(depth, s); },
      Nothing(), sum);
  real* const part = f.parts + chunk * f.part_stride + row * n + column;
  for_quads(sum, [&](int r, int c, const real(&value)[4]) {
    // scattered: rows of 5 numbers are no whole vectors; few bytes
    if (r < rows && c < columns) store_quad(part + r * n + c, value, columns - c, n % 4 == 0);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, T::kBlocks)
    backward_kernel(const __grid_constant__ Backward f) {
  SHARED(Quad, memory, [T::kQuads]);
  if (int(blockIdx.x) < f.data_blocks)
    data_block<T>(f, memory);
  else
    weight_block<T>(f, memory);
}

}  // namespace

void conv1d_backward(const Cuda& be, const Conv1dShape& s, const Rows& rows, In x, In weight, In dy,
                     InOut dx, InOut dweight, Scratch scratch) {
  check_conv1d_backward(s, rows, x, weight, dy, dx, dweight, scratch, conv1d_scratch_bytes(be, s));
  if (rows.modality_rows(s.modality) == 0 || s.channels == 0 || s.width == 0) return;
  const Chunks cut = chunks(be, s);
  const int64_t window = s.kernel * s.width;
  Backward f{};
  f.call = make_call(be, s, rows, x, weight);
  f.dy = dy.data() + rows.modality_begin(s.modality) * s.channels;
  f.dx = pointer(dx);
  f.parts = carve<real>(scratch, cut.elements);
  f.chunk_rows = cut.rows, f.part_stride = cut.stride;
  f.vector_x = vectors(x.data(), s.width, s.width);
  f.vector_dy = vectors(f.dy, s.channels, s.channels);
  f.vector_weight = s.kernel == 1 && vectors(weight.data(), s.width, s.width);
  f.vector_dx = vectors(f.dx, s.width, s.width);
  const auto blocks = [&](int64_t tile_rows, int64_t tile_columns) {
    const int64_t data =
        f.dx ? ceil_div(s.batch * s.steps, tile_rows) * ceil_div(s.width, tile_columns) : 0;
    f.data_blocks = int(data);
    if (dweight.empty()) return data;
    return data + ceil_div(f.call.rows, cut.rows) * ceil_div(s.channels, tile_rows) *
                      ceil_div(window, tile_columns);
  };
  choose_tile(be, dweight.empty() ? s.width : window, blocks, [&]<class T>(T) {
    const int products = int(f.dx != nullptr) + int(!dweight.empty());
    note_flops(2.0 * products * double(f.call.rows * s.channels * window));
    launch(be, backward_kernel<T>, unsigned(blocks(T::kRows, T::kColumns)), kThreads, 0, f);
  });
  if (dweight.empty()) return;
  const Parts parts{
      {nullptr, nullptr, f.call.rows, 0, 0, s.channels, window, dweight.data(), nullptr, s.kernel},
      cut,
      f.parts};
  add_parts(be, std::span(&parts, 1));
}

}  // namespace decalign::inline DECALIGN_REAL
