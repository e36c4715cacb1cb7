// Large diagonal mixtures: the way back, as matrix products too. Posteriors are computed again.
#include "kernels/cpu/gmm_products.h"

namespace decalign::inline DECALIGN_REAL::mixture {
namespace {

// Rows of dx's matrix: no M-step follows the last E-step.
int64_t dx_depth(const ProductProblem& q, int64_t step) {
  return step < q.iterations ? 2 * q.components : q.components;
}

// Matrices for the M-step that made the parameters of step + 1: dgamma from the features, and dx
// from [dlogits, gamma]: dx = (second half) + x (first half) of the product's row.
void prepare_backward(const ProductProblem& q, int64_t step, int64_t m) {
  const int64_t K = q.components, d = q.width;
  const Parameters p = q.parameters(step, m), dp = q.at(q.dparameters + m * q.parameters_size());
  real* plain = q.plain + m * q.plain_size();
  const auto dx_row = [&](int64_t row) { return plain + row * 2 * d; };
  if (step < q.iterations) {
    const Parameters next = q.parameters(step + 1, m);
    const auto count = [&](int64_t k) { return std::max(q.count(step, m)[k], kCountFloor); };
    const auto terms = [&](int64_t k, int64_t j) {
      const int64_t i = k * d + j;
      return gmm_column::step_terms(q.column(m, next, k, j), next.means[i], next.variances[i],
                                    dp.means[i], dp.variances[i], q.scale_of(m, j),
                                    q.count(step, m)[k] >= kCountFloor);
    };
    for (int64_t k = 0; k < K; ++k) {
      const double n_k = count(k);
      double constant =
          q.count(step, m)[k] >= kCountFloor ? n_k * dp.weights[k] / double(q.batch) : 0;
      for (int64_t j = 0; j < d; ++j) {
        if (!(next.variances[k * d + j] > q.floor_of(m, j))) dp.variances[k * d + j] = 0;
        const auto t = terms(k, j);
        constant += t.constant;
        plain[j * K + k] = real(t.square / n_k);
        plain[(d + j) * K + k] = real(t.plain / n_k);
      }
      q.dgamma_bias[m * K + k] = real(constant / n_k);
    }
    pack(plain, K, 2 * d, K, q.dgamma_matrix + m * q.packed_logits());
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < d; ++j) {
        const auto t = terms(k, j);
        dx_row(K + k)[j] = real(2 * t.square / count(k));
        dx_row(K + k)[d + j] = real(t.plain / count(k));
      }
  }
  for (int64_t k = 0; k < K; ++k)
    for (int64_t j = 0; j < d; ++j) {
      const auto t = gmm_column::logit_terms(q.column(m, p, k, j));
      dx_row(k)[j] = real(2 * t.square);
      dx_row(k)[d + j] = real(t.plain);
    }
  pack(plain, 2 * d, dx_depth(q, step), 2 * d, q.dx_matrix + m * q.packed_dx());
}

struct Cotangents {
  In weights, means, variances, posteriors, marginals, log_likelihood;
};

// Rows [n, n + rows) of the gradient of the last posteriors, to the second half of `pair`.
void given_posteriors(const ProductProblem& q, const ProductTask& t, const Cotangents& c, int64_t n,
                      int64_t rows, real* to) {
  const int64_t K = q.components;
  const double* count = q.count(q.iterations, t.m);
  double mass = 0, along = 0;
  for (int64_t k = 0; k < K && !c.marginals.empty(); ++k) {
    mass += count[k] / double(q.batch);
    along += count[k] / double(q.batch) * given(c.marginals, t.m * K + k);
  }
  along = mass >= kMassFloor ? along / mass : 0;
  const double each = 1 / (std::max(mass, kMassFloor) * double(q.batch));
  for (int64_t k = 0; k < K; ++k) {
    const double dp = c.marginals.empty() ? 0 : (given(c.marginals, t.m * K + k) - along) * each;
    for (int64_t i = 0; i < rows; ++i)
      to[i * K + k] = real(given(c.posteriors, (t.m * q.batch + n + i) * K + k) + dp);
  }
}

// One tile of a step's way back: the logits' gradient, its moments, dx.
void tile_backward(const ProductProblem& q, const ProductTask& t, const Cotangents& c, int64_t step,
                   bool logits, const real* x, int64_t n, int64_t rows, real* dx) {
  const int64_t K = q.components, d = q.width;
  const bool last = step == q.iterations;
  standardise(q, t.m, x + n * d, rows, t.features);
  tile_posteriors(q, t, rows, false);
  real* dgamma = t.second;  // [rows, K], or a product's result [rows, 2 d]
  if (last)
    given_posteriors(q, t, c, n, rows, dgamma);
  else
    multiply(rows, 2 * d, K, t.features, 2 * d, q.dgamma_matrix + t.m * q.packed_logits(),
             q.dgamma_bias + t.m * K, dgamma, K, Store::overwrite);
  const real direct = last ? real(given(c.log_likelihood, t.m) / double(q.batch)) : 0;
  for (int64_t i = 0; i < rows; ++i) {
    const real *g = t.posterior + i * K, *dg = dgamma + i * K;
    real *dl = t.pair + i * 2 * K, *copy = dl + K, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < K; ++k) sum += g[k] * dg[k];
#pragma omp simd
    for (int64_t k = 0; k < K; ++k) {
      dl[k] = logits ? g[k] * (dg[k] - sum + direct) : real(0);
      copy[k] = g[k];
    }
  }
  if (logits) add_moments(q, t, rows, t.pair, 2 * K);
  multiply(rows, dx_depth(q, step), 2 * d, t.pair, 2 * K, q.dx_matrix + t.m * q.packed_dx(),
           nullptr, t.second, 2 * d, Store::overwrite);
  const real* scale = q.scale + t.m * d;
  for (int64_t i = 0; i < rows; ++i) {
    const real *e = t.features + i * 2 * d + d, *slope = t.second + i * 2 * d, *level = slope + d;
    real* out = dx + (n + i) * d;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) out[j] += scale[j] * (level[j] + e[j] * slope[j]);
  }
}

// Gradients of the parameters of `step` from the moments of the logits' gradient.
void collect(const ProductProblem& q, int64_t step, int64_t m) {
  const int64_t K = q.components, d = q.width;
  add_chunk_sums(q, m);
  const double *total = q.chunk_sums(m, 0), *moments = total + K;
  const Parameters p = q.parameters(step, m), dp = q.at(q.dparameters + m * q.parameters_size());
  for (int64_t k = 0; k < K; ++k) {
    const double t0 = total[k];
    dp.weights[k] = p.weights[k] >= kWeightFloor ? t0 / p.weights[k] : 0;
    for (int64_t j = 0; j < d; ++j) {
      const double *square = moments + k * 2 * d, *plain = square + d;
      const auto pull =
          gmm_column::logit_pull(q.column(m, p, k, j), t0, plain[j], square[j], q.scale_of(m, j));
      dp.means[k * d + j] = pull.mean;
      dp.variances[k * d + j] = pull.variance;
    }
  }
}

void add_given(const ProductProblem& q, const Cotangents& c, int64_t m) {
  const int64_t K = q.components, n = K * q.width;
  const Parameters dp = q.at(q.dparameters + m * q.parameters_size());
  for (int64_t k = 0; k < K; ++k) dp.weights[k] += given(c.weights, m * K + k);
  for (int64_t i = 0; i < n; ++i) {
    dp.means[i] += given(c.means, m * n + i);
    dp.variances[i] += given(c.variances, m * n + i);
  }
}

// The start: the chosen rows, and the batch variance where the floor leaves it.
void start_backward(const Cpu& be, const ProductProblem& q, int64_t m, const real* x,
                    const int32_t* choice, real* dx) {
  const int64_t K = q.components, d = q.width;
  const Parameters dp = q.at(q.dparameters + m * q.parameters_size());
  for (int64_t k = 0; k < K; ++k)
    for (int64_t j = 0; j < d; ++j) dx[choice[k] * d + j] += real(dp.means[k * d + j]);
  double* slope = q.chunk_sums(m, 0);
  for (int64_t j = 0; j < d; ++j) {
    double dv = 0;
    for (int64_t k = 0; k < K; ++k) dv += dp.variances[k * d + j];
    slope[j] = q.spread[m * d + j] < q.floor ? 0 : 2 * dv / double(q.batch);
  }
  parallel_ranges(be, q.batch, q.chunk, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t j = 0; j < d; ++j)
        dx[n * d + j] += real(slope[j] * (double(x[n * d + j]) - double(q.shift[m * d + j])));
  });
}

}  // namespace

void products_backward(const Cpu& be, const GmmShape& s, In x, std::span<const int32_t> choice,
                       In dweights, In dmeans, In dvariances, In dposteriors, In dmarginals,
                       In dlog_likelihood, InOut dx, Scratch state) {
  const ProductProblem q = product_problem(s, state);
  const int64_t M = q.modalities, K = q.components, d = q.width, last = q.iterations;
  const Cotangents c{dweights, dmeans, dvariances, dposteriors, dmarginals, dlog_likelihood};
  std::fill_n(q.dparameters, M * q.parameters_size(), 0.0);
  const bool all = s.options.gradient == GmmGradient::every_step;
  const auto rows_of = [&](auto* base, int64_t m) { return base + m * q.batch * d; };
  for (int64_t step = last; step >= 0; --step) {
    const bool logits = step == last || all;
    parallel_for(be, M, [&](int64_t m) {
      prepare_logits(q, step, m);
      prepare_backward(q, step, m);
    });
    parallel_for(be, M * q.chunks, [&](int64_t i) {
      const ProductTask t = product_task(q, i);
      std::fill_n(q.chunk_sums(t.m, t.c), q.parameters_size(), 0.0);
      int64_t count = 0;
      for (int64_t n = t.first; n < t.last; n += q.kRows) {
        tile_backward(q, t, c, step, logits, rows_of(x.data(), t.m), n,
                      std::min(q.kRows, t.last - n), rows_of(dx.data(), t.m));
        if (++count % q.kPromote == 0 || n + q.kRows >= t.last) flush_moments(q, t);
      }
    });
    if (!logits) return;
    parallel_for(be, M, [&](int64_t m) {
      collect(q, step, m);
      if (step == last) add_given(q, c, m);
    });
  }
  for (int64_t m = 0; m < M; ++m)
    start_backward(be, q, m, rows_of(x.data(), m), choice.data() + m * K, rows_of(dx.data(), m));
}

}  // namespace decalign::inline DECALIGN_REAL::mixture
