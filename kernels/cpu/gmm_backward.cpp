// The way back through every EM step and the start.
#include "kernels/carve.h"
#include "kernels/check/gmm.h"
#include "kernels/cpu/gmm_full.h"
#include "kernels/cpu/gmm_products.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace mixture;

// d of the E-step: dgamma [B, K] becomes the logits' gradient; dp = the parameters' gradient (not
// added), dx accumulates. `direct` is the gradient of every row's log sum_k exp(logit).
void expectation_backward(const Problem& q, const Parameters& p, const double* gamma,
                          const Parameters& dp, double direct = 0) {
  const int64_t K = q.components, d = q.width;
  set_precisions(q, p);
  for (int64_t n = 0; n < q.batch; ++n) {
    const double* g = gamma + n * K;
    double *row = q.dgamma + n * K, sum = 0;
    for (int64_t k = 0; k < K; ++k) sum += g[k] * row[k];
    for (int64_t k = 0; k < K; ++k) row[k] = g[k] * (row[k] - sum + direct);
  }
  for (int64_t k = 0; k < K; ++k) {
    const double *mu = p.means + k * d, *w = q.precision + k * d;
    double *dmu = dp.means + k * d, *dv = dp.variances + k * d, total = 0;
    std::fill(dmu, dmu + d, 0.0);
    std::fill(dv, dv + d, 0.0);
    for (int64_t n = 0; n < q.batch; ++n) {
      const double l = q.dgamma[n * K + k], *x = q.x + n * d;
      double* out = q.dx + n * d;
      total += l;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) {
        const double e = (x[j] - mu[j]) * w[j];
        dmu[j] += l * e;
        dv[j] += l * (e * e - w[j]);
        out[j] -= l * e;
      }
    }
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) dv[j] *= 0.5;
    dp.weights[k] = p.weights[k] >= kWeightFloor ? total / p.weights[k] : 0;
  }
}

// d of the M-step that made p from gamma: dgamma [B, K] is overwritten, dx accumulates.
void maximisation_backward(const Problem& q, const Parameters& p, const Parameters& dp,
                           const double* gamma) {
  const int64_t K = q.components, d = q.width;
  for (int64_t k = 0; k < K; ++k) {
    const double raw = count(q, gamma, k), n_k = std::max(raw, kCountFloor);
    const bool kept = raw >= kCountFloor;
    const double *mu = p.means + k * d, *v = p.variances + k * d;
    double *dmu = dp.means + k * d, *dv = dp.variances + k * d, constant = 0;
    for (int64_t j = 0; j < d; ++j) {
      if (!(v[j] > q.floor)) dv[j] = 0;
      // Kept: N_k is the sum of gamma and moves the moments; floored: it is a constant.
      constant += kept ? -dv[j] * v[j] : (dmu[j] - dv[j] * mu[j]) * mu[j];
    }
    if (kept) constant += n_k * dp.weights[k] / double(q.batch);
    const double inverse = 1 / n_k;
    for (int64_t n = 0; n < q.batch; ++n) {
      const double g = gamma[n * K + k] * inverse, *x = q.x + n * d;
      double *out = q.dx + n * d, sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < d; ++j) {
        const double e = x[j] - mu[j];
        sum += e * (dmu[j] + dv[j] * e);
        out[j] += g * (dmu[j] + 2 * dv[j] * e);
      }
      q.dgamma[n * K + k] = inverse * (sum + constant);
    }
  }
}

// The start: the chosen rows, and the batch variance where the floor leaves it.
void start_backward(const Problem& q, const int32_t* choice, const Parameters& dp) {
  const int64_t n = q.batch, K = q.components, d = q.width;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t j = 0; j < d; ++j) q.dx[choice[k] * d + j] += dp.means[k * d + j];
  for (int64_t j = 0; j < d; ++j) {
    double mean, variance, dv = 0;
    column_moments(q, j, mean, variance);
    if (variance < q.floor) continue;
    for (int64_t k = 0; k < K; ++k) dv += dp.variances[k * d + j];
    for (int64_t i = 0; i < n; ++i) q.dx[i * d + j] += 2 * dv / double(n) * (q.x[i * d + j] - mean);
  }
}

// The gradient of the last posteriors, also through marginals = p / max(sum p, floor), p = mean of
// the posteriors.
void outputs_backward(const Problem& q, int64_t m, In dposteriors, In dmarginals) {
  const int64_t n = q.batch, K = q.components;
  const double* gamma = q.gamma(q.iterations);
  double mass = 0, along = 0;
  for (int64_t k = 0; k < K; ++k) {
    const double p = count(q, gamma, k) / double(n);
    mass += p;
    along += p * given(dmarginals, m * K + k);
  }
  along = mass >= kMassFloor ? along / mass : 0;
  for (int64_t k = 0; k < K; ++k) {
    const double dp =
        (given(dmarginals, m * K + k) - along) / std::max(mass, kMassFloor) / double(n);
    for (int64_t i = 0; i < n; ++i)
      q.dgamma[i * K + k] = given(dposteriors, (m * n + i) * K + k) + dp;
  }
}

void direct_backward(const Cpu& be, const GmmShape& s, In, std::span<const int32_t> choice,
                     In dweights, In dmeans, In dvariances, In dposteriors, In dmarginals,
                     In dlog_likelihood, InOut dx, Scratch state) {
  const int64_t n = s.batch, K = s.options.components, d = s.width;
  parallel_for(be, s.modalities, [&](int64_t m) {
    const Problem q = problem(s, m, state);
    const int32_t* rows = choice.data() + m * K;
    std::fill_n(q.dx, n * d, 0.0);
    const Parameters dp = q.parameters_at(q.dparameters);
    outputs_backward(q, m, dposteriors, dmarginals);
    expectation_backward(q, q.parameters(q.iterations), q.gamma(q.iterations), dp,
                         given(dlog_likelihood, m) / double(n));
    for (int64_t k = 0; k < K; ++k) dp.weights[k] += given(dweights, m * K + k);
    for (int64_t i = 0; i < K * d; ++i) {
      dp.means[i] += given(dmeans, m * K * d + i);
      dp.variances[i] += given(dvariances, m * K * d + i);
    }
    const bool all = s.options.gradient == GmmGradient::every_step;
    for (int64_t step = q.iterations - 1; step >= 0; --step) {
      maximisation_backward(q, q.parameters(step + 1), dp, q.gamma(step));
      if (!all) break;
      expectation_backward(q, q.parameters(step), q.gamma(step), dp);
    }
    if (all || q.iterations == 0) start_backward(q, rows, dp);
    real* out = dx.data() + m * n * d;
    for (int64_t i = 0; i < n * d; ++i) out[i] = real(double(out[i]) + q.dx[i]);
  });
}

}  // namespace

void gmm_backward(const Cpu& be, const GmmShape& s, In x, std::span<const int32_t> choice,
                  In dweights, In dmeans, In dcovariances, In dposteriors, In dmarginals,
                  In dlog_likelihood, InOut dx, Scratch state) {
  const size_t needed = gmm_state_bytes(be, s);
  check_gmm_backward(s, x, choice, dweights, dmeans, dcovariances, dposteriors, dmarginals,
                     dlog_likelihood, dx, state, needed);
  if (dx.empty()) return;
  const auto run = s.options.covariance == GmmCovariance::full ? full_backward
                   : by_products(s)                            ? products_backward
                                                               : direct_backward;
  run(be, s, x, choice, dweights, dmeans, dcovariances, dposteriors, dmarginals, dlog_likelihood,
      dx, state.first(needed));
}

}  // namespace decalign::inline DECALIGN_REAL
