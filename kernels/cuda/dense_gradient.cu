#include "kernels/cuda/dense.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/last_block.h"

namespace decalign::inline DECALIGN_REAL::gemm {
namespace {

// Rows of dx that the same groups read: the bits of `sources`.
struct Segment {
  int64_t row, rows;
  uint32_t sources;
  int first_block;
};
struct WeightTask {
  WeightGradient of;
  int first_block;
  int64_t first_part;
  int first_tile;
};
struct Call {
  DataShape data;
  ParameterList<DataGradient, kTasks> sources;
  ParameterList<Segment, 2 * kTasks> segments;
  ParameterList<WeightTask, kTasks> weights;
  int data_blocks = 0;
  bool vector_dz = true, vector_weight = true, vector_dx = true;  // of the data gradients
  bool vector_a = true, vector_b = true;                          // of the weight gradients
  int64_t chunk_rows = 0, part_stride = 0;
  real* parts = nullptr;
  unsigned* counters = nullptr;  // a counter per tile of a weight; null: the parts stay parts
};

// The last block of a tile adds all chunks to the gradient, in their order.
template <class T>
__device__ void finish_tile(const Call& call, const WeightTask& task, int tile, int64_t row,
                            int64_t column) {
  const WeightGradient& of = task.of;
  const int chunks = int((of.rows + call.chunk_rows - 1) / call.chunk_rows);
  if (!is_last_block(call.counters + task.first_tile + tile, chunks)) return;
  const int rows = left(of.m, row, T::kRows), columns = left(of.n, column, T::kColumns);
  const real* const first = call.parts + task.first_part * call.part_stride;
  const auto add = [&](real* out, int64_t e) {
    double total = 0;
#pragma unroll 4
    for (int c = 0; c < chunks; ++c) total += double(load_part(first + c * call.part_stride + e));
    *out = real(double(*out) + total);
  };
  if (of.dweight)
    for (int i = int(threadIdx.x); i < rows * columns; i += kThreads) {
      const int64_t e = (row + i / columns) * of.n + column + i % columns;
      add(of.dweight + e, e);
    }
  if (of.dbias && column == 0 && int(threadIdx.x) < rows)
    add(of.dbias + row + threadIdx.x, of.m * of.n + row + threadIdx.x);
}

template <class T>
__device__ void data_block(const Call& call, Quad* memory) {
  const DataShape& s = call.data;
  int g = 0;
  while (g + 1 < call.segments.count && call.segments.item[g + 1].first_block <= int(blockIdx.x))
    ++g;
  const Segment& segment = call.segments.item[g];
  const int block = int(blockIdx.x) - segment.first_block;
  const int across = int((s.columns + T::kColumns - 1) / T::kColumns);
  const int64_t row = int64_t(block / across) * T::kRows;
  const int64_t column = int64_t(block % across) * T::kColumns;
  const int rows = left(segment.rows, row, T::kRows),
            columns = left(s.columns, column, T::kColumns);

  using A = Along<T::kRows>;
  using B = Across<T::kColumns, T::kPrecision>;
  Sum<T> sum;
  for (int i = 0; i < call.sources.count; ++i) {
    if (!(segment.sources >> i & 1)) continue;
    const DataGradient& source = call.sources.item[i];
    const real* const dz =
        source.dz + (segment.row + row - source.x_row + A::outer(0)) * s.dz_stride + A::depth();
    const real* const w = source.weight + column + B::outer();
    const auto load_dz = [&](int step, Pack(&pack)[A::kPasses]) {
      const int64_t l = int64_t(step) * kDepth;
      const int depth = step_depth(s.depth, step) - A::depth();
#pragma unroll
      for (int p = 0; p < A::kPasses; ++p)
        pack[p] = load_pack(dz + 16 * p * s.dz_stride + l, 1, A::outer(p) < rows ? depth : 0,
                            call.vector_dz);
    };
    const auto load_w = [&](int step, Pack(&pack)[B::kPasses]) {
#pragma unroll
      for (int p = 0; p < B::kPasses; ++p) {
        const int64_t l = int64_t(step) * kDepth + B::depth(p);
        pack[p] = load_pack(w + l * s.columns, 1, l < s.depth ? columns - B::outer() : 0,
                            call.vector_weight);
      }
    };
    multiply<T, A, B>(
        memory, step_count(s.depth), load_dz, load_w,
        [&](int step) { return step_depth(s.depth, step); }, Nothing(), sum);
  }
  const int64_t at = (segment.row + row) * s.columns + column;
  for_quads(sum, [&](int r, int c, real(&value)[4]) {
    if (r >= rows || c >= columns) return;
    const int64_t e = at + r * s.columns + c;
    if (!s.gate) return add_quad(s.dx + e, value, columns - c, call.vector_dx);
    const Quad open = load_quad(s.gate + e, columns - c, call.vector_dx);
#pragma unroll
    for (int j = 0; j < 4; ++j) value[j] = open.v[j] > 0 ? value[j] * s.scale : real(0);
    store_quad(s.dx + e, value, columns - c, call.vector_dx);
  });
}

// What a chunk of rows adds to a tile of a weight gradient and, in the first column of tiles, to
// the bias gradient.
template <class T>
__device__ void weight_block(const Call& call, Quad* memory) {
  SHARED(real, bias_part, [4][T::kRows]);
  const int number = int(blockIdx.x) - call.data_blocks;
  int t = 0;
  while (t + 1 < call.weights.count && call.weights.item[t + 1].first_block <= number) ++t;
  const WeightTask& task = call.weights.item[t];
  const WeightGradient& of = task.of;
  const int across = max(int((of.n + T::kColumns - 1) / T::kColumns), 1);
  const int down = int((of.m + T::kRows - 1) / T::kRows);
  int block = number - task.first_block;
  const int64_t column = int64_t(block % across) * T::kColumns;
  block /= across;
  const int64_t row = int64_t(block % down) * T::kRows;
  const int64_t chunk = block / down, begin = chunk * call.chunk_rows;
  const int depth = left(of.rows, begin, int(call.chunk_rows));
  const int rows = left(of.m, row, T::kRows), columns = left(of.n, column, T::kColumns);

  using A = Across<T::kRows, T::kPrecision>;
  using B = Across<T::kColumns, T::kPrecision>;
  const real* const dz = of.dz + begin * of.dz_stride + row + A::outer();
  const real* const x = of.x + begin * of.x_stride + column + B::outer();
  const auto load_dz = [&](int step, Pack(&pack)[A::kPasses]) {
#pragma unroll
    for (int p = 0; p < A::kPasses; ++p) {
      const int l = step * kDepth + A::depth(p);
      pack[p] =
          load_pack(dz + l * of.dz_stride, 1, l < depth ? rows - A::outer() : 0, call.vector_a);
    }
  };
  const auto load_x = [&](int step, Pack(&pack)[B::kPasses]) {
#pragma unroll
    for (int p = 0; p < B::kPasses; ++p) {
      const int l = step * kDepth + B::depth(p);
      pack[p] =
          load_pack(x + l * of.x_stride, 1, l < depth ? columns - B::outer() : 0, call.vector_b);
    }
  };
  // Every warp sums up a quarter of each step's depth, a lane per row of the tile modulo 32.
  constexpr int kSums = T::kRows / 32, kQuarter = kDepth / 4;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const bool with_bias = of.dbias && column == 0;
  real bias[kSums] = {};
  const auto staged = [&](const real* a) {
    if (!with_bias) return;
#pragma unroll
    for (int i = 0; i < kSums; ++i)
#pragma unroll
      for (int d = 0; d < kQuarter; ++d) {
        const int depth = kQuarter * warp + d;
        bias[i] += a[depth * T::kRows + ((32 * i + lane) ^ A::turned(depth))];
      }
  };
  Sum<T> sum;
  multiply<T, A, B>(
      memory, step_count(depth), load_dz, load_x, [&](int step) { return step_depth(depth, step); },
      staged, sum);

  real* const part = call.parts + (task.first_part + chunk) * call.part_stride;
  if (of.dweight)
    for_quads(sum, [&](int r, int c, const real(&value)[4]) {
      if (r < rows && c < columns)
        store_quad(part + (row + r) * of.n + column + c, value, columns - c, of.n % 4 == 0);
    });
  if (with_bias) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) bias_part[warp][32 * i + lane] = bias[i];
    __syncthreads();
    const int r = int(threadIdx.x);
    if (r < T::kRows && r < rows)
      part[of.m * of.n + row + r] =
          (bias_part[0][r] + bias_part[1][r]) + (bias_part[2][r] + bias_part[3][r]);
  }
  if (call.counters)
    finish_tile<T>(call, task, (number - task.first_block) % (across * down), row, column);
}

template <class T>
__global__ void __launch_bounds__(kThreads, T::kBlocks)
    gradient_kernel(const __grid_constant__ Call call) {
  SHARED(Quad, memory, [T::kQuads]);
  if (int(blockIdx.x) < call.data_blocks)
    data_block<T>(call, memory);
  else
    weight_block<T>(call, memory);
}

// The rows of dx in pieces that the same sources read.
void find_segments(std::span<const DataGradient> list, Call& call) {
  int64_t cut[2 * kTasks];
  int cuts = 0;
  for (const DataGradient& d : list) {
    if (d.rows == 0) continue;
    cut[cuts++] = d.x_row;
    cut[cuts++] = d.x_row + d.rows;
  }
  std::sort(cut, cut + cuts);
  for (int c = 0; c + 1 < cuts; ++c) {
    if (cut[c] == cut[c + 1]) continue;
    Segment segment{cut[c], cut[c + 1] - cut[c], 0, 0};
    for (size_t i = 0; i < list.size(); ++i)
      if (list[i].x_row <= cut[c] && cut[c] < list[i].x_row + list[i].rows)
        segment.sources |= 1u << i;
    if (segment.sources) call.segments.item[call.segments.count++] = segment;
  }
}

bool distinct(std::span<const WeightGradient> weights) {
  for (size_t i = 0; i < weights.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if ((weights[i].dweight && weights[i].dweight == weights[j].dweight) ||
          (weights[i].dbias && weights[i].dbias == weights[j].dbias))
        return false;
  return true;
}

}  // namespace

bool gradients(const Cuda& be, const DataShape& s, std::span<const DataGradient> data,
               std::span<const WeightGradient> weights, const Chunks& chunks, real* parts) {
  Call call;
  call.data = s;
  call.chunk_rows = chunks.rows, call.part_stride = chunks.stride, call.parts = parts;
  call.vector_dx = vectors(s.dx, s.columns, s.columns) && aligned(s.gate);
  if (s.dx && s.columns > 0) {
    for (const DataGradient& d : data) {
      call.sources.item[call.sources.count++] = d;
      call.vector_dz = call.vector_dz && vectors(d.dz, s.dz_stride, s.depth);
      call.vector_weight = call.vector_weight && vectors(d.weight, s.columns, s.columns);
    }
    find_segments(data, call);
  }
  expect(be.counters != nullptr, "Cuda: the backend has no counters");
  const bool finish = distinct(weights);
  int64_t first_part = 0, columns = s.columns;
  for (const WeightGradient& w : weights) {
    const int64_t first = first_part;
    first_part += ceil_div(w.rows, chunks.rows);
    if (w.m == 0 || (!w.dweight && !w.dbias)) continue;
    call.weights.item[call.weights.count++] = {w, 0, first, 0};
    call.vector_a = call.vector_a && vectors(w.dz, w.dz_stride, w.m);
    call.vector_b = call.vector_b && vectors(w.x, w.x_stride, w.n);
    columns = w.n;
  }
  const auto blocks = [&](int64_t tile_rows, int64_t tile_columns) {
    int64_t next = 0;
    for (int i = 0; i < call.segments.count; ++i) {
      call.segments.item[i].first_block = int(next);
      next += ceil_div(call.segments.item[i].rows, tile_rows) * ceil_div(s.columns, tile_columns);
    }
    call.data_blocks = int(next);
    int64_t tiles = 0;
    for (int i = 0; i < call.weights.count; ++i) {
      WeightTask& task = call.weights.item[i];
      task.first_block = int(next) - call.data_blocks;
      task.first_tile = int(tiles);
      const int64_t of_weight =
          ceil_div(task.of.m, tile_rows) *
          std::max<int64_t>(ceil_div(task.of.n, tile_columns), 1);  // a bias wants a block, too
      tiles += of_weight;
      next += ceil_div(task.of.rows, chunks.rows) * of_weight;
    }
    call.counters = finish && tiles <= kCounters ? be.counters : nullptr;
    return next;
  };
  double products = 0;
  for (int i = 0; i < call.sources.count; ++i)
    products += double(call.sources.item[i].rows * s.depth * s.columns);
  for (int i = 0; i < call.weights.count; ++i) {
    const WeightGradient& w = call.weights.item[i].of;
    products += double(w.rows * w.m * w.n);
  }
  choose_tile(be, columns, blocks, [&]<class T>(T) {
    note_flops(2 * products);
    launch(be, gradient_kernel<T>, unsigned(blocks(T::kRows, T::kColumns)), kThreads, 0, call);
  });
  return call.counters || call.weights.count == 0;
}

}  // namespace decalign::inline DECALIGN_REAL::gemm
