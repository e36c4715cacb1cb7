#include "kernels/carve.h"
#include "kernels/check/matmul.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/dense.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using gemm::kTasks;
using Groups = std::span<const MatmulGroup>;

// From so many elements of a weight on a product without an epilogue is cuBLAS's: one call per
// group. Below, all groups in one launch are worth more than its larger tiles.
constexpr int64_t kWide = int64_t(1) << 17;
bool wide(const MatmulShape& s) { return !s.relu && s.n * s.k >= kWide; }

gemm::Chunks chunks(const Cuda& be, const MatmulShape& s, Groups groups) {
  int64_t rows = 0;
  for (const MatmulGroup& g : groups) rows += g.rows;
  return gemm::Chunks(be, rows, std::ssize(groups), s.n, s.k);
}

constexpr int kBiasThreads = 256;

struct BiasTask {
  const real* bias;
  real* y;
  int64_t rows;
};
using BiasTasks = ParameterList<BiasTask, kTasks>;

// y [rows, n] = bias, for the product that is added next: a block per row.
__global__ void __launch_bounds__(kBiasThreads)
    bias_kernel(const __grid_constant__ BiasTasks tasks, int64_t n, int64_t y_stride) {
  const BiasTask& task = tasks.item[blockIdx.y];
  const int64_t row = blockIdx.x;
  if (row >= task.rows) return;
  for (int64_t j = threadIdx.x; j < n; j += kBiasThreads) task.y[row * y_stride + j] = task.bias[j];
}

constexpr int kSumColumns = 32, kSumRows = 32;  // of a block of bias_gradient_kernel

struct BiasGradientTask {
  const real* dz;
  real* dbias;
  int64_t rows;
};
using BiasGradientTasks = ParameterList<BiasGradientTask, kTasks>;

// dbias += column sums of dz. The first group with a gradient takes care of those that share it.
__global__ void __launch_bounds__(kSumColumns* kSumRows)
    bias_gradient_kernel(const __grid_constant__ BiasGradientTasks tasks, int64_t n,
                         int64_t stride) {
  SHARED(real, share, [kSumRows][kSumColumns]);
  real* const out = tasks.item[blockIdx.y].dbias;
  for (int t = 0; t < int(blockIdx.y); ++t)
    if (tasks.item[t].dbias == out) return;
  const int column = int(threadIdx.x) % kSumColumns, row = int(threadIdx.x) / kSumColumns;
  const int64_t j = int64_t(blockIdx.x) * kSumColumns + column;
  real total = 0;
  for (int t = int(blockIdx.y); t < tasks.count && j < n; ++t) {
    const BiasGradientTask& task = tasks.item[t];
    if (task.dbias != out) continue;
#pragma unroll 8
    for (int64_t r = row; r < task.rows; r += kSumRows) total += task.dz[r * stride + j];
  }
  share[row][column] = total;
  __syncthreads();
  if (row > 0 || j >= n) return;
  double sum = 0;
#pragma unroll 8
  for (int r = 0; r < kSumRows; ++r) sum += double(share[r][column]);
  out[j] = real(double(out[j]) + sum);
}

void forward_wide(const Cuda& be, const MatmulShape& s, Groups groups, const real* x, real* y) {
  BiasTasks tasks;
  int64_t rows = 0;
  const auto flush = [&] {
    launch(be, bias_kernel, dim3(unsigned(rows), unsigned(tasks.count)), kBiasThreads, 0, tasks,
           s.n, s.y_cols);
    tasks.count = 0, rows = 0;
  };
  const auto start = [&](const MatmulGroup& g) { return y + g.y_row * s.y_cols + g.y_col; };
  for (const MatmulGroup& g : groups) {
    if (g.bias.empty()) continue;
    if (tasks.count == kTasks) flush();
    tasks.item[tasks.count++] = {g.bias.data(), start(g), g.rows};
    rows = std::max(rows, g.rows);
  }
  flush();
  for (const MatmulGroup& g : groups)
    blas_product(be, g.rows, s.n, s.k, x + g.x_row * s.k, s.k, false, g.weight.data(), s.k, true,
                 g.bias.empty() ? real(0) : real(1), start(g), s.y_cols);
}

void backward_wide(const Cuda& be, const MatmulShape& s, Groups groups, const real* x,
                   const real* dy, real* dx) {
  BiasGradientTasks tasks;
  const auto flush = [&] {
    launch(be, bias_gradient_kernel,
           dim3(unsigned(ceil_div<int64_t>(s.n, kSumColumns)), unsigned(tasks.count)),
           kSumColumns * kSumRows, 0, tasks, s.n, s.y_cols);
    tasks.count = 0;
  };
  for (const MatmulGroup& g : groups) {
    const real* const dz = dy + g.y_row * s.y_cols + g.y_col;
    if (dx)
      blas_product(be, g.rows, s.k, s.n, dz, s.y_cols, false, g.weight.data(), s.k, false, real(1),
                   dx + g.x_row * s.k, s.k);
    if (!g.dweight.empty() && g.rows > 0)
      blas_product(be, s.n, s.k, g.rows, dz, s.y_cols, true, x + g.x_row * s.k, s.k, false, real(1),
                   g.dweight.data(), s.k);
    if (g.dbias.empty()) continue;
    if (tasks.count == kTasks) flush();
    tasks.item[tasks.count++] = {dz, g.dbias.data(), g.rows};
  }
  flush();
}

constexpr int kGateThreads = 256;

// dz = dy * scale where y > 0, else 0.
__global__ void __launch_bounds__(kGateThreads)
    gate_kernel(const real* y, const real* dy, real scale, int64_t size, real* dz) {
  const int64_t e = int64_t(blockIdx.x) * kGateThreads + threadIdx.x;
  if (e < size) dz[e] = y[e] > 0 ? dy[e] * scale : real(0);
}

}  // namespace

size_t matmul_scratch_bytes(const Cuda& be, const MatmulShape& s, Groups groups) {
  if (wide(s)) return 0;
  return (s.relu ? carve_bytes<real>(s.y_rows * s.y_cols) : 0) +
         carve_bytes<real>(chunks(be, s, groups).elements);
}

void matmul_forward(const Cuda& be, const MatmulShape& s, Groups groups, In x, Out y,
                    Scratch scratch) {
  check_matmul_forward(s, groups, x, y, scratch, matmul_scratch_bytes(be, s, groups));
  if (wide(s)) {
    expect(be.blas != nullptr, "matmul: the backend has no cuBLAS handle");
    return forward_wide(be, s, groups, x.data(), y.data());
  }
  std::vector<gemm::Dense> list;
  for (const MatmulGroup& g : groups)
    list.push_back({x.data() + g.x_row * s.k, g.weight.data(), pointer(g.bias),
                    y.data() + g.y_row * s.y_cols + g.y_col, g.rows, g.y_row * s.y_cols + g.y_col});
  gemm::dense(be, {s.k, s.n, s.k, s.y_cols, s.relu, s.dropout}, list);
}

void matmul_backward(const Cuda& be, const MatmulShape& s, Groups groups, In x, In y, In dy,
                     InOut dx, Scratch scratch) {
  check_matmul_backward(s, groups, x, y, dy, dx, scratch, matmul_scratch_bytes(be, s, groups));
  if (wide(s)) {
    expect(be.blas != nullptr, "matmul: the backend has no cuBLAS handle");
    return backward_wide(be, s, groups, x.data(), dy.data(), pointer(dx));
  }
  const real* dz = dy.data();
  if (s.relu) {
    real* gated = carve<real>(scratch, s.y_rows * s.y_cols);
    launch(be, gate_kernel, unsigned(ceil_div<int64_t>(std::ssize(dy), kGateThreads)), kGateThreads,
           0, y.data(), dz, s.dropout.scale(), std::ssize(dy), gated);
    dz = gated;
  }
  const gemm::Chunks parts_of = chunks(be, s, groups);
  real* const parts = carve<real>(scratch, parts_of.elements);
  for (size_t begin = 0; begin < groups.size(); begin += kTasks) {
    std::vector<gemm::DataGradient> data;
    std::vector<gemm::WeightGradient> weights;
    for (const MatmulGroup& g :
         groups.subspan(begin, std::min<size_t>(kTasks, groups.size() - begin))) {
      const real* const from = dz + g.y_row * s.y_cols + g.y_col;
      data.push_back({from, g.weight.data(), g.x_row, g.rows});
      weights.push_back({from, x.data() + g.x_row * s.k, g.rows, s.y_cols, s.k, s.n, s.k,
                         pointer(g.dweight), pointer(g.dbias)});
    }
    if (gemm::gradients(be, {s.n, s.k, s.y_cols, pointer(dx)}, data, weights, parts_of, parts))
      continue;
    std::vector<gemm::Parts> list;
    gemm::append_parts(list, weights, parts_of, parts);
    gemm::add_parts(be, list);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
