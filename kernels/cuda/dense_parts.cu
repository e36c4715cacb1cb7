#include "kernels/cuda/dense.h"

namespace decalign::inline DECALIGN_REAL::gemm {
namespace {

constexpr int kOutputs = 32, kReaders = 8;  // of a block of add_parts_kernel

struct PartTask {
  const real* parts;
  real *dweight, *dbias;
  int64_t stride, weights, biases;  // elements
  int chunks, taps;
  int64_t window;  // elements of a row of the weight
};
using PartTasks = ParameterList<PartTask, 2 * kTasks>;

// A thread's share of the sum of element e of a task's weight gradient or of its bias gradient.
__device__ double read_parts(const PartTask& task, int64_t e, int reader) {
  double total = 0;
#pragma unroll 4
  for (int c = reader; c < task.chunks; c += kReaders)
    total += double(task.parts[c * task.stride + e]);
  return total;
}

// A thread per element and one in eight of the chunks. The first entry that has a gradient takes
// care of those after it that share it.
__global__ void __launch_bounds__(kOutputs* kReaders)
    add_parts_kernel(const __grid_constant__ PartTasks tasks) {
  SHARED(double, share, [kReaders][kOutputs]);
  const PartTask& mine = tasks.item[blockIdx.y];
  const int column = int(threadIdx.x) % kOutputs, reader = int(threadIdx.x) / kOutputs;
  const int64_t e = int64_t(blockIdx.x) * kOutputs + column;
  const bool in_weight = e < mine.weights, in_bias = !in_weight && e < mine.weights + mine.biases;
  real* const out = in_weight ? mine.dweight : in_bias ? mine.dbias : nullptr;
  const auto other = [&](const PartTask& t) { return in_weight ? t.dweight : t.dbias; };
  bool first = out != nullptr;
  for (int t = 0; t < int(blockIdx.y); ++t) first = first && other(tasks.item[t]) != out;
  double total = 0;
  if (first)
    for (int t = int(blockIdx.y); t < tasks.count; ++t) {
      const PartTask& task = tasks.item[t];
      if (other(task) == out)
        total += read_parts(task, in_weight ? e : e - mine.weights + task.weights, reader);
    }
  share[reader][column] = total;
  __syncthreads();
  if (reader > 0 || !first) return;
#pragma unroll
  for (int r = 1; r < kReaders; ++r) total += share[r][column];
  int64_t at = in_weight ? e : e - mine.weights;
  if (in_weight && mine.taps > 1) {
    const int64_t width = mine.window / mine.taps, l = e % mine.window;
    at = e - l + l % width * mine.taps + l / width;
  }
  real& slot = out[at];
  slot = real(double(slot) + total);
}

}  // namespace

void append_parts(std::vector<Parts>& list, std::span<const WeightGradient> gradients,
                  const Chunks& chunks, const real* parts) {
  for (const WeightGradient& g : gradients) {
    if (g.rows > 0 && (g.dweight || g.dbias)) list.push_back({g, chunks, parts});
    parts += ceil_div(g.rows, chunks.rows) * chunks.stride;
  }
}

void add_parts(const Cuda& be, std::span<const Parts> list) {
  PartTasks tasks;
  int64_t elements = 0;
  for (const Parts& p : list) {
    const WeightGradient& g = p.gradient;
    tasks.item[tasks.count++] = {p.parts,
                                 g.dweight,
                                 g.dbias,
                                 p.chunks.stride,
                                 g.m * g.n,
                                 g.m,
                                 int(ceil_div(g.rows, p.chunks.rows)),
                                 int(g.taps),
                                 g.n};
    elements = std::max(elements, g.m * g.n + g.m);
  }
  launch(be, add_parts_kernel,
         dim3(unsigned(ceil_div<int64_t>(elements, kOutputs)), unsigned(tasks.count)),
         kOutputs * kReaders, 0, tasks);
}

}  // namespace decalign::inline DECALIGN_REAL::gemm
