// Large diagonal mixtures: the way back, as matrix products too. Posteriors are computed again.
#include "kernels/cuda/blas.h"
#include "kernels/cuda/gmm_products.h"

namespace decalign::inline DECALIGN_REAL {
namespace gmm_products {
namespace {

// The outputs' gradients; null where there is none.
struct Given {
  const real *weights, *means, *variances, *posteriors, *marginals, *likelihood;
};

__device__ double given(const real* g, int64_t i) { return g ? double(g[i]) : 0; }

// What the gradients of the marginals add to each posterior's, to dgamma_bias; a block per
// modality.
__global__ void __launch_bounds__(kThreads)
    given_kernel(const __grid_constant__ Problem q, const real* marginals) {
  const int64_t m = blockIdx.x, K = q.components;
  const double* const count = q.count(q.iterations, m);
  const double n = double(q.batch);
  double mass = 0, along = 0;
  for (int64_t k = threadIdx.x; k < K; k += kThreads) {
    mass += count[k] / n;
    along += count[k] / n * given(marginals, m * K + k);
  }
  mass = block_sum<kThreads>(mass);
  along = block_sum<kThreads>(along);
  along = mass >= kMassFloor ? along / mass : 0;
  const double each = 1 / (max(mass, kMassFloor) * n);
  for (int64_t k = threadIdx.x; k < K; k += kThreads)
    q.dgamma_bias[m * K + k] =
        marginals ? real((given(marginals, m * K + k) - along) * each) : real(0);
}

// Component k of the M-step that made the parameters of step + 1, by a warp: dgamma from the
// features, and the second half of dx's matrix.
__device__ void prepare_step(const Problem& q, int64_t step, int64_t m, int64_t k) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t K = q.components, d = q.width;
  const Parameters next = q.parameters(step + 1, m), dp = q.gradients(m);
  const double raw = q.count(step, m)[k], n_k = max(raw, kCountFloor);
  const bool kept = raw >= kCountFloor;
  real* const dgamma = q.dgamma_matrix + (m * K + k) * 2 * d;
  real* const dx = q.dx_matrix + ((2 * m + 1) * K + k) * 2 * d;
  double constant = 0;
  for (int64_t j = lane; j < d; j += 32) {
    const int64_t i = k * d + j;
    const double variance = next.variances[i];
    const double dvariance = variance > q.floor_of(m, j) ? dp.variances[i] : 0;
    const auto t = gmm_column::step_terms(q.column(m, next, k, j), next.means[i], variance,
                                          dp.means[i], dvariance, q.scale_of(m, j), kept);
    constant += t.constant;
    dgamma[j] = real(t.square / n_k);
    dgamma[d + j] = real(t.plain / n_k);
    dx[j] = real(2 * t.square / n_k);
    dx[d + j] = real(t.plain / n_k);
  }
  constant = warp_sum(constant);
  if (lane > 0) return;
  if (kept) constant += n_k * dp.weights[k] / double(q.batch);
  q.dgamma_bias[m * K + k] = real(constant / n_k);
}

// The matrices of step's way back: dx = (second half) + x (first half) of a row of
// [dlogits, gamma] dx_matrix. A warp per component.
__global__ void __launch_bounds__(kThreads)
    prepare_kernel(const __grid_constant__ Problem q, int64_t step) {
  const int64_t m = blockIdx.y, k = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t K = q.components, d = q.width;
  if (k >= K) return;
  prepare_logits(q, step, m, k);
  if (step < q.iterations) prepare_step(q, step, m, k);
  const Parameters p = q.parameters(step, m);
  real* const row = q.dx_matrix + (2 * m * K + k) * 2 * d;
  for (int64_t j = threadIdx.x % 32; j < d; j += 32) {
    const auto terms = gmm_column::logit_terms(q.column(m, p, k, j));
    row[j] = real(2 * terms.square);
    row[d + j] = real(terms.plain);
  }
}

// dlogits = gamma (dgamma - gamma . dgamma + direct), dgamma = more (null: 0) + dbias; gamma is
// left in `posterior`, which has its logits without bias. `more` may be dlogits. Sums of kBlockRows
// to totals.
template <int kEach>
__global__ void __launch_bounds__(kThreads, kBlocks<kEach>)
    logits_kernel(int64_t rows, int K, double each, const real* bias, const real* dbias,
                  const real* more, const real* likelihood, real* posterior, real* dlogits,
                  real* totals) {
  const int64_t begin = blockIdx.x * kBlockRows, end = min(begin + kBlockRows, rows);
  const real direct = real(given(likelihood, 0) * each);
  Row<kEach> total{};
  for (int64_t n = begin + threadIdx.x / 32; n < end; n += kWarps) {
    Row<kEach> gamma{posterior + n * K, {}}, dl{dlogits + n * K, {}};
    softmax_row(K, bias, false, gamma);
    store_row(K, gamma);
    real sum = 0;
    for_lane<kEach>(K, [&](int i, int k) {
      const real dgamma = (more ? more[n * K + k] : real(0)) + dbias[k];
      sum += gamma.at(i, k) * dgamma;
      dl.at(i, k) = dgamma;
    });
    sum = warp_sum(sum);
    for_lane<kEach>(K, [&](int i, int k) {
      const real value = gamma.at(i, k) * (dl.at(i, k) - sum + direct);
      dl.at(i, k) = value;
      if constexpr (kEach > 0) total.at(i, k) += value;
    });
    store_row(K, dl);
  }
  write_totals(K, total, dlogits + begin * K, end - begin, totals + blockIdx.x * int64_t(K));
}

// dx += scale (level + x' slope), from the rows [slope, level] of the product.
__global__ void __launch_bounds__(kThreads)
    dx_kernel(unsigned size, unsigned width, const real* features, const real* slopes,
              const real* scale, real* dx) {
  const unsigned e = blockIdx.x * kThreads + threadIdx.x;
  if (e >= size) return;
  const unsigned n = e / width, j = e % width;
  const int64_t at = int64_t(n) * 2 * width + j;
  dx[e] += scale[j] * (slopes[at + width] + features[at + width] * slopes[at]);
}

// Gradients of the parameters of `step` from the moments of the logits' gradient.
__global__ void __launch_bounds__(kThreads, 2)
    collect_kernel(const __grid_constant__ Problem q, int64_t step,
                   const __grid_constant__ Given g) {
  const int64_t m = blockIdx.y, K = q.components, d = q.width;
  const int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x, k = e / d, j = e % d;
  if (k >= K) return;
  const double* const sums = q.sums + m * q.parameters_size();
  const double *square = sums + K + k * 2 * d, *plain = square + d;
  const Parameters p = q.parameters(step, m), dp = q.gradients(m);
  const bool last = step == q.iterations;
  const auto pull =
      gmm_column::logit_pull(q.column(m, p, k, j), sums[k], plain[j], square[j], q.scale_of(m, j));
  dp.means[e] = pull.mean + (last ? given(g.means, m * K * d + e) : 0);
  dp.variances[e] = pull.variance + (last ? given(g.variances, m * K * d + e) : 0);
  if (j > 0) return;
  // scattered: one number of d
  const double weight = p.weights[k], more = last ? given(g.weights, m * K + k) : 0;
  // scattered: one number of d
  dp.weights[k] = (weight >= kWeightFloor ? sums[k] / weight : 0) + more;
}

// What the batch's variance, where the floor leaves it, gives x - mean: a block per 32 columns, to
// the sums [M, d].
__global__ void __launch_bounds__(kThreads) spread_kernel(const __grid_constant__ Problem q) {
  SHARED(double, part, [kWarps][32]);
  const int64_t m = blockIdx.y, d = q.width;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t j = int64_t(blockIdx.x) * 32 + lane;
  const Parameters dp = q.gradients(m);
  double sum = 0;
#pragma unroll 4
  for (int64_t k = warp; k < q.components && j < d; k += kWarps) sum += dp.variances[k * d + j];
  part[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || j >= d) return;
  sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += part[w][lane];
  q.sums[m * d + j] = q.spread[m * d + j] < q.floor ? 0 : 2 * sum / double(q.batch);
}

__global__ void __launch_bounds__(kThreads)
    rows_kernel(const __grid_constant__ Problem q, const real* x, real* dx) {
  const int64_t m = blockIdx.y, d = q.width, begin = m * q.batch * d;
  const int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x, j = e % d;
  if (e >= q.batch * d) return;
  dx[begin + e] += real(q.sums[m * d + j] * (double(x[begin + e]) - q.shift_of(m, j)));
}

// The rows at which the means start: the first of the components that share one adds all of theirs.
__global__ void __launch_bounds__(kThreads)
    chosen_kernel(const __grid_constant__ Problem q, const int32_t* choice, real* dx) {
  const int64_t k = blockIdx.x, m = blockIdx.y, K = q.components, d = q.width;
  const int32_t* const rows = choice + m * K;
  const int32_t row = rows[k];
  bool taken = false;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) taken |= rows[i] == row;
  if (__syncthreads_or(taken)) return;
  const Parameters dp = q.gradients(m);
  for (int64_t j = threadIdx.x; j < d; j += kThreads) {
    double sum = 0;
    for (int64_t i = k; i < K; ++i)
      if (rows[i] == row) sum += dp.means[i * d + j];
    dx[(m * q.batch + row) * d + j] += real(sum);
  }
}

// dlogits, gamma and the moments of dlogits for a chunk whose logits are there.
void dlogits(const Cuda& be, const Problem& q, const Chunk& c, bool last, const Given& g) {
  const int64_t K = q.components, d = q.width;
  const real* more = q.dlogits;
  if (last)
    more = g.posteriors ? g.posteriors + (c.m * q.batch + c.first) * K : nullptr;
  else
    blas_product(be, c.rows, K, 2 * d, q.features, 2 * d, false, q.dgamma_matrix + c.m * K * 2 * d,
                 2 * d, true, real(0), q.dlogits, K);
  const real* const likelihood = last && g.likelihood ? g.likelihood + c.m : nullptr;
  with_each(K, [&](auto each) {
    note_flops(26.0 * double(c.rows * K));
    launch(be, logits_kernel<each.value>, blocks(c.rows, kBlockRows), kThreads, 0, c.rows, int(K),
           1 / double(q.batch), q.logit_bias + c.m * K, q.dgamma_bias + c.m * K, more, likelihood,
           q.posterior, q.dlogits, q.totals);
  });
  add_moments(be, q, c, q.dlogits);
}

// A chunk of step's way back; without `logits` only through the M-step after it.
void chunk_backward(const Cuda& be, const Problem& q, const Chunk& c, int64_t step, bool logits,
                    const Given& g, const real* x, real* dx) {
  const int64_t K = q.components, d = q.width, size = c.rows * d;
  const bool last = step == q.iterations;
  expectation(be, q, c, x, q.posterior);
  if (logits)
    dlogits(be, q, c, last, g);
  else
    softmax(be, q, c, false, q.posterior);
  const real* const matrix = q.dx_matrix + c.m * 2 * K * 2 * d;
  if (logits)
    blas_product(be, c.rows, 2 * d, K, q.dlogits, K, false, matrix, 2 * d, false, real(0), q.slopes,
                 2 * d);
  if (!last)
    blas_product(be, c.rows, 2 * d, K, q.posterior, K, false, matrix + K * 2 * d, 2 * d, false,
                 real(logits ? 1 : 0), q.slopes, 2 * d);
  launch(be, dx_kernel, blocks(size, kThreads), kThreads, 0, unsigned(size), unsigned(d),
         q.features, q.slopes, q.scale + c.m * d, dx + (c.m * q.batch + c.first) * d);
}

}  // namespace
}  // namespace gmm_products

using namespace gmm_products;

void gmm_products_backward(const Cuda& backend, const GmmShape& s, In x,
                           std::span<const int32_t> choice, In dweights, In dmeans, In dvariances,
                           In dposteriors, In dmarginals, In dlog_likelihood, InOut dx,
                           Scratch state) {
  const Cuda be = plain(backend);
  const Problem q = problem(s, state);
  const unsigned M = unsigned(q.modalities);
  const int64_t K = q.components, d = q.width, last = q.iterations;
  const Given g{pointer(dweights),    pointer(dmeans),     pointer(dvariances),
                pointer(dposteriors), pointer(dmarginals), pointer(dlog_likelihood)};
  launch(be, given_kernel, M, kThreads, 0, q, g.marginals);
  for (int64_t step = last; step >= 0; --step) {
    const bool logits = step == last || s.options.gradient == GmmGradient::every_step;
    launch(be, prepare_kernel, dim3(blocks(K, kWarps), M), kThreads, 0, q, step);
    for_chunks(
        q, [&](const Chunk& c) { chunk_backward(be, q, c, step, logits, g, x.data(), dx.data()); });
    if (!logits) return;
    launch(be, collect_kernel, dim3(blocks(K * d, kThreads), M), kThreads, 0, q, step, g);
  }
  launch(be, spread_kernel, dim3(blocks(d, 32), M), kThreads, 0, q);
  launch(be, rows_kernel, dim3(blocks(q.batch * d, kThreads), M), kThreads, 0, q, x.data(),
         dx.data());
  launch(be, chosen_kernel, dim3(unsigned(K), M), kThreads, 0, q, choice.data(), dx.data());
}

}  // namespace decalign::inline DECALIGN_REAL
