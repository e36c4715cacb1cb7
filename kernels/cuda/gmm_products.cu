#include "kernels/carve.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/gmm_products.h"

namespace decalign::inline DECALIGN_REAL {
namespace gmm_products {
namespace {

template <class D, class R>
void for_arrays(Problem& q, D&& doubles, R&& reals) {
  const int64_t M = q.modalities, K = q.components, d = q.width, S = q.iterations + 1;
  doubles(q.history, S * M * q.parameters_size());
  doubles(q.counts, S * M * K);
  doubles(q.spread, M * d);
  doubles(q.sums, M * q.parameters_size());
  doubles(q.dparameters, M * q.parameters_size());
  doubles(q.parts, M * q.row_blocks() * std::max<int64_t>(2 * d, 1));
  doubles(q.likelihoods, M * q.likelihood_parts());
  doubles(q.nearest, M * q.batch);
  reals(q.shift, M * d);
  reals(q.scale, M * d);
  reals(q.logit_matrix, M * K * 2 * d);
  reals(q.logit_bias, M * K);
  reals(q.dgamma_matrix, M * K * 2 * d);
  reals(q.dgamma_bias, M * K);
  reals(q.dx_matrix, M * 2 * K * 2 * d);
  reals(q.features, q.chunk * 2 * d);
  reals(q.posterior, q.chunk * K);
  reals(q.dlogits, q.chunk * K);
  reals(q.slopes, q.chunk * 2 * d);
  reals(q.moments, ceil_div(q.chunk, kPromote) * K * 2 * d);
  reals(q.totals, ceil_div(q.chunk, kBlockRows) * K);
}

Problem sized(const GmmShape& s) {
  Problem q;
  q.modalities = s.modalities;
  q.batch = s.batch;
  q.width = s.width;
  q.components = s.options.components;
  q.iterations = s.options.iterations;
  q.floor = s.options.variance_floor;
  const int64_t row = (q.components + 2 * q.width) * int64_t(sizeof(real));
  q.chunk = kPromote;  // a power of two, for cuBLAS's tiles
  while (q.chunk < kLargestChunk && 2 * q.chunk * row <= kChunkBytes) q.chunk *= 2;
  q.chunk = std::min(q.chunk, q.batch);
  return q;
}

__global__ void __launch_bounds__(kThreads)
    standardise_kernel(unsigned size, unsigned width, const real* x, const real* shift,
                       const real* scale, real* features) {
  const unsigned e = blockIdx.x * kThreads + threadIdx.x;
  if (e >= size) return;
  const unsigned n = e / width, j = e % width;
  const real standard = (x[e] - shift[j]) * scale[j];
  real* const row = features + int64_t(n) * 2 * width + j;
  row[0] = standard * standard;
  row[width] = standard;
}

template <int kEach>
__global__ void __launch_bounds__(kThreads, kBlocks<kEach>)
    softmax_kernel(int64_t rows, int K, const real* bias, real* logits, real* totals,
                   double* likelihoods) {
  const int64_t begin = blockIdx.x * kBlockRows, end = min(begin + kBlockRows, rows);
  Row<kEach> total{};
  double likelihood = 0;
  for (int64_t n = begin + threadIdx.x / 32; n < end; n += kWarps) {
    Row<kEach> row{logits + n * K, {}};
    likelihood += softmax_row(K, bias, likelihoods != nullptr, row);
    store_row(K, row);
    if constexpr (kEach > 0)
      for_lane<kEach>(K, [&](int i, int k) { total.at(i, k) += row.at(i, k); });
  }
  write_totals(K, total, logits + begin * K, end - begin, totals + blockIdx.x * int64_t(K));
  if (likelihoods == nullptr) return;
  likelihood = block_sum<kThreads>(threadIdx.x % 32 == 0 ? likelihood : 0.0);
  if (threadIdx.x == 0) likelihoods[blockIdx.x] = likelihood;
}

// A block has 256 moments, of all parts, or the totals of 32 components.
__global__ void __launch_bounds__(kThreads)
    add_kernel(int64_t moments, int parts, const real* moment, int K, int total_parts,
               const real* total, bool first, double* sums) {
  SHARED(double, share, [kWarps][32]);
  const int64_t moment_blocks = ceil_div<int64_t>(moments, kThreads);
  const auto add = [&](double* to, double sum) { *to = first ? sum : *to + sum; };
  if (blockIdx.x < moment_blocks) {
    const int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (e >= moments) return;
    double sum = 0;
#pragma unroll 4
    for (int p = 0; p < parts; ++p) sum += double(moment[p * moments + e]);
    return add(sums + K + e, sum);
  }
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int k = int(blockIdx.x - moment_blocks) * 32 + lane;
  double sum = 0;
#pragma unroll 4
  for (int p = warp; p < total_parts && k < K; p += kWarps)
    sum += double(total[int64_t(p) * K + k]);
  share[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || k >= K) return;
  sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += share[w][lane];
  add(sums + k, sum);
}

// Component k of `step` from the sums under the posteriors of the step before, by a warp.
__device__ void maximisation(const Problem& q, int64_t step, int64_t m, int64_t k) {
  const int64_t d = q.width;
  const double* const sums = q.sums + m * q.parameters_size();
  const double *square = sums + q.components + k * 2 * d, *plain = square + d;
  const Parameters p = q.parameters(step, m);
  const double raw = sums[k], n_k = max(raw, kCountFloor);
  const int lane = int(threadIdx.x) % 32;
  for (int64_t j = lane; j < d; j += 32) {
    const auto e = gmm_column::estimate(plain[j], square[j], n_k, raw / n_k, q.shift_of(m, j),
                                        q.scale_of(m, j));
    p.means[k * d + j] = e.mean;
    p.variances[k * d + j] = max(e.variance, q.floor_of(m, j));
  }
  if (lane > 0) return;
  q.count(step - 1, m)[k] = raw;
  p.weights[k] = n_k / double(q.batch);
}

// A warp per component.
__global__ void __launch_bounds__(kThreads)
    prepare_kernel(const __grid_constant__ Problem q, int64_t step) {
  const int64_t m = blockIdx.y, k = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (k >= q.components) return;
  if (step > 0) maximisation(q, step, m, k);
  prepare_logits(q, step, m, k);
}

// Marginals and log-likelihood, each null where not asked for, from the sums of the last E-step; a
// block per modality.
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const __grid_constant__ Problem q, real* marginals, real* likelihood) {
  const int64_t m = blockIdx.x, K = q.components;
  const double n = double(q.batch);
  const double* const sums = q.sums + m * q.parameters_size();
  double total = 0, sum = 0;
  for (int64_t k = threadIdx.x; k < K; k += kThreads) {
    q.count(q.iterations, m)[k] = sums[k];
    total += sums[k] / n;
  }
  total = block_sum<kThreads>(total);
  for (int64_t k = threadIdx.x; k < K && marginals; k += kThreads)
    marginals[m * K + k] = real(sums[k] / n / max(total, kMassFloor));
  const int64_t parts = q.likelihood_parts();
#pragma unroll 4
  for (int64_t p = threadIdx.x; p < parts; p += kThreads) sum += q.likelihoods[m * parts + p];
  sum = block_sum<kThreads>(sum);
  constexpr double kLogTwoPi = 1.8378770664093454836;
  if (threadIdx.x == 0 && likelihood)
    likelihood[m] = real(sum / n - 0.5 * double(q.width) * kLogTwoPi);
}

__global__ void __launch_bounds__(kThreads)
    write_kernel(const __grid_constant__ Problem q, bool counted, real* weights, real* means,
                 real* variances) {
  const int64_t m = blockIdx.y, K = q.components, size = K * q.width;
  const int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (e < K && !counted) q.count(q.iterations, m)[e] = 0;
  const Parameters p = q.parameters(q.iterations, m);
  if (e < K) weights[m * K + e] = real(p.weights[e]);
  if (e >= size) return;
  means[m * size + e] = real(p.means[e]);
  variances[m * size + e] = real(p.variances[e]);
}

}  // namespace

Problem problem(const GmmShape& s, Scratch state) {
  Problem q = sized(s);
  for_arrays(
      q, [&](double*& p, int64_t n) { p = carve<double>(state, n); },
      [&](real*& p, int64_t n) { p = carve<real>(state, n); });
  return q;
}

void expectation(const Cuda& be, const Problem& q, const Chunk& c, const real* x, real* logits) {
  const int64_t d = q.width, K = q.components, size = c.rows * d;
  const int64_t stride = std::max<int64_t>(2 * d, 1);
  launch(be, standardise_kernel, blocks(size, kThreads), kThreads, 0, unsigned(size), unsigned(d),
         x + (c.m * q.batch + c.first) * d, q.shift + c.m * d, q.scale + c.m * d, q.features);
  blas_product(be, c.rows, K, 2 * d, q.features, stride, false, q.logit_matrix + c.m * K * 2 * d,
               stride, true, real(0), logits, K);
}

void softmax(const Cuda& be, const Problem& q, const Chunk& c, bool likelihood, real* logits) {
  double* const parts = q.likelihoods + c.m * q.likelihood_parts() + c.first / kBlockRows;
  with_each(q.components, [&](auto each) {
    note_flops(20.0 * double(c.rows * q.components));
    launch(be, softmax_kernel<each.value>, blocks(c.rows, kBlockRows), kThreads, 0, c.rows,
           int(q.components), q.logit_bias + c.m * q.components, logits, q.totals,
           likelihood ? parts : nullptr);
  });
}

void add_moments(const Cuda& be, const Problem& q, const Chunk& c, const real* a) {
  const int64_t K = q.components, d = q.width, size = K * 2 * d, whole = c.rows / kPromote;
  if (a != nullptr) {
    blas_part_products(be, whole, K, 2 * d, kPromote, a, q.features, q.moments);
    const int64_t done = whole * kPromote;
    blas_part_products(be, c.rows > done ? 1 : 0, K, 2 * d, c.rows - done, a + done * K,
                       q.features + done * 2 * d, q.moments + whole * size);
  }
  const int64_t moments = a != nullptr ? size : 0;
  launch(be, add_kernel, blocks(moments, kThreads) + blocks(K, 32), kThreads, 0, moments,
         int(ceil_div(c.rows, kPromote)), q.moments, int(K), int(ceil_div(c.rows, kBlockRows)),
         q.totals, c.first == 0, q.sums + c.m * q.parameters_size());
}

}  // namespace gmm_products

using namespace gmm_products;

size_t gmm_products_state_bytes(const GmmShape& s) {
  Problem q = sized(s);
  size_t bytes = 0;
  for_arrays(
      q, [&](double*&, int64_t n) { bytes += carve_bytes<double>(n); },
      [&](real*&, int64_t n) { bytes += carve_bytes<real>(n); });
  return bytes;
}

void gmm_products_forward(const Cuda& backend, const GmmShape& s, In x, Out weights, Out means,
                          Out variances, Out posteriors, Out marginals, Out log_likelihood,
                          std::span<int32_t> choice, Scratch state) {
  const Cuda be = plain(backend);
  const Problem q = problem(s, state);
  const unsigned M = unsigned(q.modalities);
  const int64_t K = q.components, last = q.iterations;
  start(be, s, q, x.data(), choice.data());
  const bool outputs = !posteriors.empty() || !marginals.empty() || !log_likelihood.empty();
  for (int64_t step = 0; step <= last; ++step) {
    launch(be, prepare_kernel, dim3(blocks(K, kWarps), M), kThreads, 0, q, step);
    if (step == last && !outputs) break;
    for_chunks(q, [&](const Chunk& c) {
      real* const logits = step == last && !posteriors.empty()
                               ? posteriors.data() + (c.m * q.batch + c.first) * K
                               : q.posterior;
      expectation(be, q, c, x.data(), logits);
      softmax(be, q, c, step == last, logits);
      add_moments(be, q, c, step < last ? logits : nullptr);
    });
  }
  launch(be, write_kernel, dim3(blocks(std::max(K, K * q.width), kThreads), M), kThreads, 0, q,
         outputs, weights.data(), means.data(), variances.data());
  if (outputs)
    launch(be, finish_kernel, M, kThreads, 0, q, pointer(marginals), pointer(log_likelihood));
}

}  // namespace decalign::inline DECALIGN_REAL
