#include "kernels/cuda/dense.h"
#include "kernels/cuda/dropout_keep.h"
#include "kernels/cuda/gemm.h"

namespace decalign::inline DECALIGN_REAL::gemm {
namespace {

struct Task {
  Dense of;
  int first_block;
};
constexpr int kDense = 32;
using Tasks = ParameterList<Task, kDense>;

struct Call {
  int64_t k, n, x_stride, y_stride;
  bool relu, vector_x, vector_weight, vector_bias, vector_y;
  bool paired;  // the eight elements of a dropout decision belong to neighbouring lanes
  DeviceDropout dropout;
};

// Four decisions from element e on, in the low bits.
__device__ uint32_t keep_four(const DeviceDropout& d, uint64_t seed, uint64_t step, uint64_t e) {
  uint32_t bits = device_keep_bits(d, seed, step, e / 8) >> (e % 8);
  if (e % 8 > 4) bits |= device_keep_bits(d, seed, step, e / 8 + 1) << (8 - e % 8);
  return bits;
}

// Drops from a thread's part of the result; `element` is that of the tile's first value.
template <class T>
__device__ void drop(const Call& call, uint64_t element, Sum<T>& sum) {
  const Place<T> place;
  const DeviceDropout& d = call.dropout;
  const uint64_t seed = d.state->seed, step = d.state->step;
  const auto apply = [&](int i, uint32_t bits) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum.v[i][j] = bits >> j & 1 ? sum.v[i][j] * d.scale : real(0);
  };
  const auto at = [&](int i) {
    return element + uint64_t(place.row(i)) * uint64_t(call.y_stride) + uint64_t(place.column());
  };
  if (!call.paired) {
#pragma unroll
    for (int i = 0; i < T::kHeight; ++i) apply(i, keep_four(d, seed, step, at(i)));
    return;
  }
  // Two lanes share every block of eight: each asks for one of two rows, for both.
  const bool odd = place.across % 2;
#pragma unroll
  for (int i = 0; i < T::kHeight; i += 2) {
    const uint32_t mine = device_keep_bits(d, seed, step, (odd ? at(i + 1) : at(i)) / 8);
    const uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
    apply(i, odd ? other >> 4 : mine);
    apply(i + 1, odd ? mine >> 4 : other);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    dense_kernel(const __grid_constant__ Tasks tasks, const __grid_constant__ Call call) {
  SHARED(Quad, memory, [T::kQuads]);
  int t = 0;
  while (t + 1 < tasks.count && tasks.item[t + 1].first_block <= int(blockIdx.x)) ++t;
  const Dense& of = tasks.item[t].of;
  const int block = int(blockIdx.x) - tasks.item[t].first_block;
  const int across = int((call.n + T::kColumns - 1) / T::kColumns);
  const int64_t row = int64_t(block / across) * T::kRows;
  const int64_t column = int64_t(block % across) * T::kColumns;

  using A = Along<T::kRows>;
  using B = Along<T::kColumns>;
  const int rows = left(of.rows, row, T::kRows), columns = left(call.n, column, T::kColumns);
  const real* const x = of.x + (row + A::outer(0)) * call.x_stride + A::depth();
  const real* const w = of.weight + (column + B::outer(0)) * call.k + B::depth();
  const auto load_x = [&](int s, Pack(&pack)[A::kPasses]) {
    const int64_t l = int64_t(s) * kDepth;
    const int depth = step_depth(call.k, s) - A::depth();
#pragma unroll
    for (int i = 0; i < A::kPasses; ++i)
      pack[i] = load_pack(x + 16 * i * call.x_stride + l, 1, A::outer(i) < rows ? depth : 0,
                          call.vector_x);
  };
  const auto load_w = [&](int s, Pack(&pack)[B::kPasses]) {
    const int64_t l = int64_t(s) * kDepth;
    const int depth = step_depth(call.k, s) - B::depth();
#pragma unroll
    for (int i = 0; i < B::kPasses; ++i)
      pack[i] = load_pack(w + 16 * i * call.k + l, 1, B::outer(i) < columns ? depth : 0,
                          call.vector_weight);
  };
  Sum<T> sum;
  multiply<T, A, B>(
      memory, step_count(call.k), load_x, load_w, [&](int s) { return step_depth(call.k, s); },
      Nothing(), sum);

  const Place<T> place;
  const Quad bias = load_quad(of.bias + column + place.column(),
                              of.bias ? columns - place.column() : 0, call.vector_bias);
#pragma unroll
  for (int i = 0; i < T::kHeight; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sum.v[i][j] += bias.v[j];
      if (call.relu && !(sum.v[i][j] > 0)) sum.v[i][j] = 0;
    }
  if (call.dropout.threshold) drop(call, uint64_t(of.element + row * call.y_stride + column), sum);
  real* const y = of.y + row * call.y_stride + column;
  for_quads(sum, [&](int r, int c, const real(&value)[4]) {
    if (r < rows && c < columns)
      // scattered: results of one column (the logits)
      store_quad(y + r * call.y_stride + c, value, columns - c, call.vector_y);
  });
}

}  // namespace

void dense(const Cuda& be, const DenseShape& s, std::span<const Dense> list) {
  if (s.n == 0) return;
  Call call{s.k, s.n, s.x_stride, s.y_stride, s.relu, true, true, true, true, true, {}};
  call.dropout = DeviceDropout(s.dropout);
  int64_t tiles = 0;
  for (const Dense& d : list) {
    call.vector_x = call.vector_x && vectors(d.x, s.x_stride, s.k);
    call.vector_weight = call.vector_weight && vectors(d.weight, s.k, s.k);
    call.vector_bias = call.vector_bias && aligned(d.bias);
    call.vector_y = call.vector_y && vectors(d.y, s.y_stride, 4);
    call.paired = call.paired && d.element % 8 == 0 && s.y_stride % 8 == 0;
  }
  const auto blocks = [&](int64_t rows, int64_t columns) {
    tiles = 0;
    for (const Dense& d : list) tiles += ceil_div(d.rows, rows) * ceil_div(s.n, columns);
    return tiles;
  };
  choose_tile(be, s.n, blocks, [&]<class T>(T) {
    for (size_t begin = 0; begin < list.size(); begin += kDense) {
      Tasks tasks;
      int next = 0;
      int64_t rows = 0;
      for (const Dense& d : list.subspan(begin, std::min<size_t>(kDense, list.size() - begin))) {
        tasks.item[tasks.count++] = {d, next};
        rows += d.rows;
        next += int(ceil_div<int64_t>(d.rows, T::kRows) * ceil_div<int64_t>(s.n, T::kColumns));
      }
      note_flops(2.0 * double(rows * s.k * s.n));
      launch(be, dense_kernel<T>, unsigned(next), kThreads, 0, tasks, call);
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL::gemm
