#include "kernels/check/distribution_encoder.h"
#include "kernels/cuda/dropout_keep.h"
#include "kernels/distribution_encoder.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kRows = 4;            // of x in a block
constexpr int kLanes = 8;           // that share a sum
constexpr int kSums = 32 / kLanes;  // of a warp at a time, for each row
constexpr int kUnits = kSums;       // rows of a weight in a block of its gradient
constexpr int kChunk = 256;         // rows of x whose part of that gradient is prepared at once
constexpr int kGroups = 16;         // modalities per launch

struct Group {
  const real *weight1, *bias1, *weight2, *bias2;
  real *dweight1, *dbias1, *dweight2, *dbias2;
};
using Groups = ParameterList<Group, kGroups>;

struct Sizes {
  int batch, width, hidden, outputs;
  // Of the hidden layer in shared memory: a half-warp writes kRows columns of kRows rows at once.
  __host__ __device__ int stride() const { return hidden + (kRows + 16 - hidden % 16) % 16; }
};

// sum over i < n of weight(i) in(r, i), r < kRows, for a column that kLanes neighbouring lanes
// share; in all of them. All lanes of a warp take part.
template <class Weight, class Input>
__device__ void dot(double (&sum)[kRows], int n, Weight&& weight, Input&& in) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = 0;
#pragma unroll 2
  for (int i = threadIdx.x % kLanes; i < n; i += kLanes) {
    const double w = double(weight(i));
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] += w * in(r, i);
  }
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], offset);
}

// The entry that a lane of the first kRows of a column writes: its own row's.
__device__ double pick(const double (&sum)[kRows], int r) {
  double value = sum[0];
#pragma unroll
  for (int i = 1; i < kRows; ++i)
    if (r == i) value = sum[i];
  return value;
}

// f(column, inside) for the columns of the block's warps, kSums of a warp at a time; columns beyond
// `columns` are given as the last one, with inside = false.
template <class F>
__device__ void for_columns(int columns, F&& f) {
  const int mine = threadIdx.x % 32 / kLanes;
  for (int first = int(threadIdx.x) / 32 * kSums; first < columns; first += kWarps * kSums)
    f(min(first + mine, columns - 1), first + mine < columns);
}

// A block has kRows rows of a modality, its hidden layer in shared memory.
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ Groups groups, Sizes s, int first_modality,
                   DeviceDropout dropout, const real* x, real* z, real* rest, double* hidden) {
  DYNAMIC_SHARED(double, input);  // [kRows, width], then [kRows, stride()]
  double* const layer = input + kRows * s.width;
  const Group& g = groups.item[blockIdx.y];
  const int first = blockIdx.x * kRows, rows = min(kRows, s.batch - first);
  const int64_t at = int64_t(first_modality + int(blockIdx.y)) * s.batch + first;
  const int r = threadIdx.x % kLanes;  // the row whose results this lane writes
  for (int i = threadIdx.x; i < kRows * s.width; i += kThreads)
    input[i] = i < rows * s.width ? double(x[at * s.width + i]) : 0;
  __syncthreads();
  for_columns(s.hidden, [&](int j, bool inside) {
    double sum[kRows];
    const real* const w = g.weight1 + int64_t(j) * s.width;
    dot(
        sum, s.width, [&](int i) { return w[i]; },
        [&](int row, int i) { return input[row * s.width + i]; });
    if (!inside || r >= kRows) return;
    double h = max(pick(sum, r) + double(g.bias1[j]), 0.0);
    const int64_t e = (at + r) * s.hidden + j;
    if (r < rows) hidden[e] = h *= double(device_keep(dropout, uint64_t(e)));
    layer[r * s.stride() + j] = h;
  });
  __syncthreads();
  for_columns(s.outputs, [&](int j, bool inside) {
    double sum[kRows];
    const real* const w = g.weight2 + int64_t(j) * s.hidden;
    dot(
        sum, s.hidden, [&](int i) { return w[i]; },
        [&](int row, int i) { return layer[row * s.stride() + i]; });
    if (!inside || r >= rows) return;
    const double value = pick(sum, r) + double(g.bias2[j]);
    const int64_t e = (at + r) * s.outputs + j;
    // scattered: four columns of four rows, once
    z[e] = real(value);
    // scattered: four columns of four rows, once
    if (rest) rest[e] = real(value - double(z[e]));
  });
}

// What the backward pass reads, of one modality.
struct Modality {
  const Group& g;
  Sizes s;
  double scale;
  const real* x;
  const double* hidden;
  const real *dz, *drest;

  // The gradient of z.
  __device__ double gradient(int n, int o) const {
    const int64_t at = int64_t(n) * s.outputs + o;
    return double(dz[at]) + (drest ? double(drest[at]) : 0);
  }
  // The gradient of the hidden layer before ReLU and dropout, from that after them.
  __device__ double through(int n, int j, double d) const {
    return hidden[int64_t(n) * s.hidden + j] > 0 ? d * scale : 0;
  }
};

// dx of kRows rows; `room`: [kRows, outputs], then [kRows, stride()].
__device__ void x_backward(const Modality& m, int block, double* room, real* dx) {
  const Sizes& s = m.s;
  double* const layer = room + kRows * s.outputs;
  const int first = block * kRows, rows = min(kRows, s.batch - first), r = threadIdx.x % kLanes;
  for (int i = threadIdx.x; i < kRows * s.outputs; i += kThreads)
    room[i] = i < rows * s.outputs ? m.gradient(first, i) : 0;
  __syncthreads();
  for_columns(s.hidden, [&](int j, bool inside) {
    double sum[kRows];
    // scattered: four columns of eight rows, of a weight that the caches hold
    dot(
        sum, s.outputs, [&](int o) { return m.g.weight2[int64_t(o) * s.hidden + j]; },
        [&](int row, int o) { return room[row * s.outputs + o]; });
    if (!inside || r >= kRows) return;
    layer[r * s.stride() + j] = r < rows ? m.through(first + r, j, pick(sum, r)) : 0;
  });
  __syncthreads();
  for_columns(s.width, [&](int i, bool inside) {
    double sum[kRows];
    // scattered: four columns of eight rows, of a weight that the caches hold
    dot(
        sum, s.hidden, [&](int j) { return m.g.weight1[int64_t(j) * s.width + i]; },
        [&](int row, int j) { return layer[row * s.stride() + j]; });
    if (!inside || r >= rows) return;
    real& slot = dx[int64_t(first + r) * s.width + i];
    // scattered: four columns of four rows, once
    slot = real(double(slot) + pick(sum, r));
  });
}

// left[n - begin][u]: the gradient of unit first + u of the hidden layer at the rows n of a chunk.
__device__ void hidden_gradient(const Modality& m, int first, int begin, int end,
                                double (*left)[kUnits]) {
  const Sizes& s = m.s;
  const int r = threadIdx.x % kLanes, u = threadIdx.x % 32 / kLanes;
  const int j = min(first + u, s.hidden - 1);
  for (int n = begin + int(threadIdx.x) / 32 * kRows; n < end; n += kWarps * kRows) {
    double sum[kRows];
    // scattered: four columns of eight rows, of a weight that the caches hold
    dot(
        sum, s.outputs, [&](int o) { return m.g.weight2[int64_t(o) * s.hidden + j]; },
        [&](int row, int o) { return m.gradient(min(n + row, end - 1), o); });
    if (r < kRows && n + r < end) left[n + r - begin][u] = m.through(n + r, j, pick(sum, r));
  }
}

// dweight[first + u, i] += sum over n of left(n, u) right(n, i), and dbias without `right`: a
// thread per entry, i = width is the bias. fill(begin, end) prepares `left` for a chunk of rows.
template <class Fill, class Right>
__device__ void weight_backward(int batch, int units, int width, int first, double (*left)[kUnits],
                                Fill&& fill, Right&& right, real* dweight, real* dbias) {
  const int entries = min(kUnits, units - first) * (width + 1);
  for (int start = 0; start < entries; start += kThreads) {
    const int entry = start + int(threadIdx.x), u = entry / (width + 1), i = entry % (width + 1);
    const bool inside = entry < entries;
    double sum = 0;
    for (int begin = 0; begin < batch; begin += kChunk) {
      const int end = min(begin + kChunk, batch);
      if (start == 0 || batch > kChunk) {
        __syncthreads();  // the chunk before has been read
        fill(begin, end);
        __syncthreads();
      }
      if (!inside) continue;
#pragma unroll 4
      for (int n = begin; n < end; ++n)
        sum += left[n - begin][u] * (i < width ? double(right(n, i)) : 1.0);
    }
    real* const out = i < width ? dweight : dbias;
    if (!inside || !out) continue;
    real& slot = out[i < width ? int64_t(first + u) * width + i : first + u];
    // scattered: the bias's entries between the weight's rows
    slot = real(double(slot) + sum);
  }
}

// The blocks of a modality: kRows rows of dx each, then kUnits rows of a weight's gradient.
struct Blocks {
  int x, first, second;
};

__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Groups groups, Sizes s, Blocks blocks,
                    int first_modality, double scale, const real* x, const double* hidden,
                    const real* dz, const real* drest, real* dx) {
  DYNAMIC_SHARED(double, room);
  SHARED(double, left, [kChunk][kUnits]);
  const int64_t row = int64_t(first_modality + int(blockIdx.y)) * s.batch;
  const Modality m{groups.item[blockIdx.y],
                   s,
                   scale,
                   x + row * s.width,
                   hidden + row * s.hidden,
                   dz + row * s.outputs,
                   drest ? drest + row * s.outputs : nullptr};
  int block = blockIdx.x;
  if (block < blocks.x) return x_backward(m, block, room, dx + row * s.width);
  block -= blocks.x;
  if (block < blocks.first) {
    if (!m.g.dweight1 && !m.g.dbias1) return;
    weight_backward(
        s.batch, s.hidden, s.width, block * kUnits, left,
        [&](int begin, int end) { hidden_gradient(m, block * kUnits, begin, end, left); },
        // scattered: the next unit's row begins where the one before ends, within a warp
        [&](int n, int i) { return m.x[int64_t(n) * s.width + i]; }, m.g.dweight1, m.g.dbias1);
  } else {
    block -= blocks.first;
    if (!m.g.dweight2 && !m.g.dbias2) return;
    weight_backward(
        s.batch, s.outputs, s.hidden, block * kUnits, left,
        [&](int begin, int end) {
          for (int i = threadIdx.x; i < (end - begin) * kUnits; i += kThreads) {
            const int n = i / kUnits, o = min(block * kUnits + i % kUnits, s.outputs - 1);
            left[n][i % kUnits] = m.gradient(begin + n, o);
          }
        },
        [&](int n, int i) { return m.hidden[int64_t(n) * s.hidden + i]; }, m.g.dweight2,
        m.g.dbias2);
  }
}

Sizes sizes(const DistributionEncoderShape& s) {
  return {int(s.batch), int(s.width), int(s.hidden), int(s.outputs)};
}

// f(groups, number of the first one) for launches of at most kGroups groups.
template <class F>
void for_launches(std::span<const DistributionEncoderGroup> groups, F&& f) {
  int first = 0;
  in_parts<kGroups, Group>(
      groups,
      [](const DistributionEncoderGroup& g) {
        return Group{pointer(g.weight1),  pointer(g.bias1),    pointer(g.weight2),
                     pointer(g.bias2),    pointer(g.dweight1), pointer(g.dbias1),
                     pointer(g.dweight2), pointer(g.dbias2)};
      },
      [&](const Groups& list) {
        f(list, first);
        first += list.count;
      });
}

}  // namespace

size_t distribution_encoder_scratch_bytes(const Cuda&, const DistributionEncoderShape&, int64_t) {
  return 0;
}

void distribution_encoder_forward(const Cuda& be, const DistributionEncoderShape& s,
                                  std::span<const DistributionEncoderGroup> groups, In x, Out z,
                                  Out rest, std::span<double> hidden) {
  check_distribution_encoder_forward(s, groups, x, z, rest, hidden);
  const size_t shared = size_t(kRows * (s.width + sizes(s).stride())) * sizeof(double);
  const double products = double(s.batch * s.hidden * (s.width + s.outputs));
  for_launches(groups, [&](const Groups& list, int first) {
    note_flops(kDouble * 2 * list.count * products);
    launch(be, forward_kernel,
           dim3(unsigned(ceil_div<int64_t>(s.batch, kRows)), unsigned(list.count)), kThreads,
           shared, list, sizes(s), first, DeviceDropout(s.dropout), x.data(), z.data(),
           pointer(rest), hidden.data());
  });
}

void distribution_encoder_backward(const Cuda& be, const DistributionEncoderShape& s,
                                   std::span<const DistributionEncoderGroup> groups, In x,
                                   std::span<const double> hidden, In dz, In drest, InOut dx,
                                   Scratch scratch) {
  check_distribution_encoder_backward(
      s, groups, x, hidden, dz, drest, dx, scratch,
      distribution_encoder_scratch_bytes(be, s, std::ssize(groups)));
  if (s.batch == 0) return;
  const size_t shared = size_t(kRows * (s.outputs + sizes(s).stride())) * sizeof(double);
  const auto units = [](int64_t n) { return int(ceil_div<int64_t>(n, kUnits)); };
  const Blocks blocks{dx.empty() ? 0 : int(ceil_div<int64_t>(s.batch, kRows)), units(s.hidden),
                      units(s.outputs)};
  // Gradients of both layers' inputs and weights; the hidden layer's is taken twice.
  const double products = double(s.batch * s.hidden * (2 * s.width + 3 * s.outputs));
  for_launches(groups, [&](const Groups& list, int first) {
    note_flops(kDouble * 2 * list.count * products);
    launch(be, backward_kernel,
           dim3(unsigned(blocks.x + blocks.first + blocks.second), unsigned(list.count)), kThreads,
           shared, list, sizes(s), blocks, first, double(s.dropout.scale()), x.data(),
           hidden.data(), dz.data(), pointer(drest), dx.data());
  });
}

}  // namespace decalign::inline DECALIGN_REAL
