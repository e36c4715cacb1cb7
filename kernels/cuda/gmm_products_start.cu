// The start of a large diagonal mixture: its rows, and what standardises the columns.
#include "kernels/cuda/gmm_products.h"

namespace decalign::inline DECALIGN_REAL::gmm_products {
namespace {

using gmm_steps::Start;

__global__ void __launch_bounds__(gmm_steps::kThreads)
    even_kernel(int batch, int components, int32_t* choice) {
  gmm_steps::choose_evenly(batch, components, choice + int64_t(blockIdx.x) * components);
}

// nearest [M, B]: squared distances to the nearest row chosen before the k-th, k > 0; their sums
// over kColumnRows to parts [M, row_blocks]. A warp has a row.
__global__ void __launch_bounds__(kThreads)
    nearest_kernel(const __grid_constant__ Problem q, const real* x, const int32_t* choice, int k) {
  const int64_t m = blockIdx.y, d = q.width, begin = blockIdx.x * kColumnRows;
  const int64_t end = min(begin + kColumnRows, q.batch);
  const int lane = int(threadIdx.x) % 32;
  const real* const rows = x + m * q.batch * d;
  const real* const to = rows + choice[m * q.components + k - 1] * d;
  double* const nearest = q.nearest + m * q.batch;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x / 32; i < end; i += kWarps) {
    double square = 0;
    for (int64_t j = lane; j < d; j += 32) {
      const double e = double(rows[i * d + j]) - double(to[j]);
      square += e * e;
    }
    square = warp_sum(square);
    if (lane > 0) continue;
    if (k > 1) square = min(nearest[i], square);
    nearest[i] = square;
    sum += square;
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) q.parts[m * q.row_blocks() + blockIdx.x] = sum;
}

// The k-th row: first the block of rows, then the row in it. A warp per modality.
__global__ void __launch_bounds__(32)
    pick_kernel(const __grid_constant__ Problem q, Start start, int32_t* choice, int k) {
  const int64_t m = blockIdx.x, blocks = q.row_blocks();
  const double u = gmm_steps::uniform(start.key(), uint32_t(m), uint32_t(k));
  int64_t pick = gmm_steps::any_row(u, int(q.batch));
  if (k > 0) {
    const auto block = gmm_steps::passing(q.parts + m * blocks, int(blocks),
                                          [u](double total) { return u * total; });
    if (block.at >= 0) {
      const int64_t first = block.at * kColumnRows;
      const auto row = gmm_steps::passing(q.nearest + m * q.batch + first,
                                          int(min(kColumnRows, q.batch - first)),
                                          [&](double) { return block.left; });
      if (row.at >= 0) pick = first + row.at;
    }
  }
  if (threadIdx.x == 0) choice[m * q.components + k] = int32_t(pick);
}

// Sums of x - the first row and of its square to parts: a block per 32 columns and kColumnRows.
__global__ void __launch_bounds__(kThreads)
    column_kernel(const __grid_constant__ Problem q, const real* x) {
  SHARED(double, part, [2][kWarps][32]);
  const int64_t m = blockIdx.z, d = q.width, begin = blockIdx.x * kColumnRows;
  const int64_t end = min(begin + kColumnRows, q.batch);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t j = int64_t(blockIdx.y) * 32 + lane;
  const real* const column = x + m * q.batch * d + j;
  double sum = 0, square = 0;
  if (j < d) {
    const double pilot = double(column[0]);
#pragma unroll 4
    for (int64_t n = begin + warp; n < end; n += kWarps) {
      const double e = double(column[n * d]) - pilot;
      sum += e, square += e * e;
    }
  }
  part[0][warp][lane] = sum, part[1][warp][lane] = square;
  __syncthreads();
  if (warp > 1 || j >= d) return;
  sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += part[warp][w][lane];
  q.parts[((m * q.row_blocks() + blockIdx.x) * 2 + warp) * d + j] = sum;
}

// Mean and variance of 32 columns, and step 0 of their parameters.
__global__ void __launch_bounds__(kThreads)
    start_kernel(const __grid_constant__ Problem q, const real* x, const int32_t* choice) {
  SHARED(double, part, [2][kWarps][32]);
  const int64_t m = blockIdx.y, K = q.components, d = q.width, blocks = q.row_blocks();
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t j = int64_t(blockIdx.x) * 32 + lane;
  const Parameters p = q.parameters(0, m);
  if (blockIdx.x == 0)
    for (int64_t k = threadIdx.x; k < K; k += kThreads) p.weights[k] = 1 / double(K);
  double sum = 0, square = 0;
#pragma unroll 4
  for (int64_t b = warp; b < blocks && j < d; b += kWarps) {
    const double* const from = q.parts + (m * blocks + b) * 2 * d + j;
    sum += from[0], square += from[d];
  }
  part[0][warp][lane] = sum, part[1][warp][lane] = square;
  __syncthreads();
  if (j >= d) return;
  sum = square = 0;
  for (int w = 0; w < kWarps; ++w) sum += part[0][w][lane], square += part[1][w][lane];
  const real* const column = x + m * q.batch * d + j;
  const auto standard = gmm_column::standard(double(column[0]), sum, square, double(q.batch));
  if (warp == 0) {
    q.spread[m * d + j] = standard.variance;
    q.shift[m * d + j] = standard.shift;
    q.scale[m * d + j] = standard.scale;
  }
#pragma unroll 4
  for (int64_t k = warp; k < K; k += kWarps) {
    p.means[k * d + j] = double(column[choice[m * K + k] * d]);
    p.variances[k * d + j] = max(standard.variance, q.floor);
  }
}

}  // namespace

void start(const Cuda& be, const GmmShape& s, const Problem& q, const real* x, int32_t* choice) {
  const unsigned M = unsigned(q.modalities), rows = unsigned(q.row_blocks());
  const double elements = double(q.modalities) * double(q.batch) * double(q.width);
  const Start how{s.options.init, s.options.seed, s.options.random};
  if (!how.drawn(q.batch, q.components))
    launch(be, even_kernel, M, gmm_steps::kThreads, 0, int(q.batch), int(q.components), choice);
  else
    for (int k = 0; k < int(q.components); ++k) {
      if (k > 0) {
        note_flops(kDouble * 3 * elements);
        launch(be, nearest_kernel, dim3(rows, M), kThreads, 0, q, x, choice, k);
      }
      launch(be, pick_kernel, M, 32, 0, q, how, choice, k);
    }
  const unsigned columns = blocks(q.width, 32);
  note_flops(kDouble * 4 * elements);
  launch(be, column_kernel, dim3(rows, columns, M), kThreads, 0, q, x);
  launch(be, start_kernel, dim3(std::max(columns, 1u), M), kThreads, 0, q, x, choice);
}

}  // namespace decalign::inline DECALIGN_REAL::gmm_products
