// The way back through every EM step and the start.
#include "kernels/cpu/carve.h"
#include "kernels/cpu/gmm_steps.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace mixture;

// d of the E-step: dgamma [B, K] becomes the logits' gradient; dp = the parameters' gradient (not
// added), dx accumulates. The scratch holds the precisions of p.
void expectation_backward(const Problem& q, Parameters<const real> p, const real* gamma,
                          real* dgamma, Parameters<real> dp, real* dx) {
  const int64_t K = q.components, d = q.width;
  for (int64_t n = 0; n < q.batch; ++n) {
    const real* g = gamma + n * K;
    real *row = dgamma + n * K, sum = 0;
    for (int64_t k = 0; k < K; ++k) sum += g[k] * row[k];
    for (int64_t k = 0; k < K; ++k) row[k] = g[k] * (row[k] - sum);
  }
  for (int64_t k = 0; k < K; ++k) {
    const real *mu = p.means + k * d, *w = q.precision + k * d;
    real *dmu = dp.means + k * d, *dv = dp.variances + k * d, total = 0;
    std::fill(dmu, dmu + d, real(0));
    std::fill(dv, dv + d, real(0));
    for (int64_t n = 0; n < q.batch; ++n) {
      const real l = dgamma[n * K + k], *x = q.x + n * d;
      real* out = dx + n * d;
      total += l;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) {
        const real e = (x[j] - mu[j]) * w[j];
        dmu[j] += l * e;
        dv[j] += l * (e * e - w[j]);
        out[j] -= l * e;
      }
    }
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) dv[j] *= real(0.5);
    dp.weights[k] = double(p.weights[k]) >= kWeightFloor ? total / p.weights[k] : real(0);
  }
}

// d of the M-step that made p from gamma: dgamma [B, K] is overwritten, dx accumulates.
void maximisation_backward(const Problem& q, Parameters<const real> p, Parameters<real> dp,
                           double floor, const real* gamma, real* dgamma, real* dx) {
  const int64_t K = q.components, d = q.width;
  for (int64_t k = 0; k < K; ++k) {
    const real raw = count(q, gamma, k), n_k = std::max(raw, real(kCountFloor));
    const bool kept = raw >= real(kCountFloor);
    const real *mu = p.means + k * d, *v = p.variances + k * d;
    real *dmu = dp.means + k * d, *dv = dp.variances + k * d, constant = 0;
    for (int64_t j = 0; j < d; ++j) {
      if (!(v[j] > real(floor))) dv[j] = 0;
      // Kept: N_k is the sum of gamma and moves the moments; floored: it is a constant.
      constant += kept ? -dv[j] * v[j] : (dmu[j] - dv[j] * mu[j]) * mu[j];
    }
    if (kept) constant += n_k * dp.weights[k] / real(q.batch);
    const real inverse = 1 / n_k;
    for (int64_t n = 0; n < q.batch; ++n) {
      const real g = gamma[n * K + k] * inverse, *x = q.x + n * d;
      real *out = dx + n * d, sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < d; ++j) {
        const real e = x[j] - mu[j];
        sum += e * (dmu[j] + dv[j] * e);
        out[j] += g * (dmu[j] + 2 * dv[j] * e);
      }
      dgamma[n * K + k] = inverse * (sum + constant);
    }
  }
}

}  // namespace

void gmm_backward(const Cpu& be, const GmmShape& s, In x, In weights, In means, In variances,
                  In posteriors, In history, std::span<const int32_t> choice, In dweights,
                  In dmeans, In dvariances, In dposteriors, In dmarginals, InOut dx,
                  Scratch scratch) {
  check(s, x, weights, means, variances, posteriors, history, choice, gmm_scratch_bytes(be, s),
        scratch);
  expect(dweights.empty() || dweights.size() == weights.size(), "gmm: dweights must be [M, K]");
  expect(dmeans.empty() || dmeans.size() == means.size(), "gmm: dmeans must be [M, K, d]");
  expect(dvariances.empty() || dvariances.size() == variances.size(),
         "gmm: dvariances must be [M, K, d]");
  expect(dposteriors.empty() || dposteriors.size() == posteriors.size(),
         "gmm: dposteriors must be [M, B, K]");
  expect(dmarginals.empty() || dmarginals.size() == weights.size(),
         "gmm: dmarginals must be [M, K]");
  expect(dx.empty() || dx.size() == x.size(), "gmm: dx must have the size of x");
  if (dx.empty()) return;
  const int64_t n = s.batch, K = s.options.components, d = s.width, steps = s.options.iterations;
  parallel_for(be, s.modalities, [&](int64_t m) {
    Scratch mine = scratch.subspan(size_t(m) * (gmm_scratch_bytes(be, s) / size_t(s.modalities)));
    carve<double>(mine, n);
    real* work = carve<real>(mine, real_scratch(s));
    const Problem q{n, K, d, x.data() + m * n * d, work, work + K * d};
    real *gamma = work + K * d + K, *dgamma = gamma + n * K, *dp_memory = dgamma + n * K;
    const Parameters<real> dp{dp_memory, dp_memory + K, dp_memory + K + K * d};
    real* out = dx.data() + m * n * d;
    const auto at = [&](int64_t step) {
      return step < steps ? step_parameters(s, history.data(), m, step)
                          : final_parameters(s, m, weights.data(), means.data(), variances.data());
    };
    const auto given = [](In g, int64_t i) { return g.empty() ? real(0) : g[size_t(i)]; };

    // Posteriors and marginals = p / max(sum p, floor), p = mean of the posteriors.
    const real* last = posteriors.data() + m * n * K;
    double mass = 0, along = 0;
    for (int64_t k = 0; k < K; ++k) {
      const double p = double(count(q, last, k)) / double(n);
      mass += p;
      along += p * double(given(dmarginals, m * K + k));
    }
    along = mass >= kMassFloor ? along / mass : 0;
    for (int64_t k = 0; k < K; ++k) {
      const double dp_k =
          (double(given(dmarginals, m * K + k)) - along) / std::max(mass, kMassFloor) / double(n);
      for (int64_t i = 0; i < n; ++i)
        dgamma[i * K + k] = given(dposteriors, (m * n + i) * K + k) + real(dp_k);
    }
    expectation(q, at(steps), gamma);
    expectation_backward(q, at(steps), gamma, dgamma, dp, out);
    for (int64_t k = 0; k < K; ++k) dp.weights[k] += given(dweights, m * K + k);
    for (int64_t i = 0; i < K * d; ++i) {
      dp.means[i] += given(dmeans, m * K * d + i);
      dp.variances[i] += given(dvariances, m * K * d + i);
    }
    for (int64_t step = steps - 1; step >= 0; --step) {
      expectation(q, at(step), gamma);
      maximisation_backward(q, at(step + 1), dp, s.options.variance_floor, gamma, dgamma, out);
      expectation_backward(q, at(step), gamma, dgamma, dp, out);
    }
    // The start: the chosen rows, and the batch variance where the floor leaves it.
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < d; ++j) out[choice[size_t(m * K + k)] * d + j] += dp.means[k * d + j];
    for (int64_t j = 0; j < d; ++j) {
      double mean, variance, dv = 0;
      column_moments(q.x, n, d, j, mean, variance);
      if (real(variance) < real(s.options.variance_floor)) continue;
      for (int64_t k = 0; k < K; ++k) dv += double(dp.variances[k * d + j]);
      for (int64_t i = 0; i < n; ++i)
        out[i * d + j] += real(2 * dv / double(n) * (double(q.x[i * d + j]) - mean));
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
