#include "kernels/gmm.h"

#include <cmath>

#include "kernels/cpu/carve.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kCountFloor = 1e-6, kWeightFloor = 1e-8, kMassFloor = 1e-8;

// Parameters of one mixture: weights [K], means [K, d], variances [K, d].
template <class T>
struct Parameters {
  T *weights, *means, *variances;
};

// One modality's share of the problem and of the scratch.
struct Problem {
  int64_t batch, components, width;
  const real* x;
  real* precision;  // [K, d]
  real* log_scale;  // [K]
};

int64_t history_size(const GmmShape& s) { return s.options.components * (1 + 2 * s.width); }

template <class T>
Parameters<T> step_parameters(const GmmShape& s, T* history, int64_t m, int64_t step) {
  const int64_t k = s.options.components, d = s.width;
  T* p = history + (m * s.options.iterations + step) * history_size(s);
  return {p, p + k, p + k + k * d};
}

template <class T>
Parameters<T> final_parameters(const GmmShape& s, int64_t m, T* weights, T* means, T* variances) {
  const int64_t k = s.options.components, d = s.width;
  return {weights + m * k, means + m * k * d, variances + m * k * d};
}

// ---- start -------------------------------------------------------------------------------------

// floor(u n) for a uniform u in [0, 1) that is a function of (seed, modality, component).
double uniform(uint64_t seed, int64_t m, int64_t k) {
  const auto word =
      philox({uint32_t(m), uint32_t(k), 0x6d6d67u, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
  return (double(word[0]) + double(word[1]) / 4294967296.0) / 4294967296.0;
}

void choose_linspace(int64_t n, int64_t k, int32_t* choice) {
  const float last = float(n - 1), step = k > 1 ? last / float(k - 1) : 0.0f;
  for (int64_t i = 0; i < k; ++i) {
    const float at = i < k / 2 || k == 1 ? step * float(i) : last - step * float(k - 1 - i);
    choice[i] = int32_t(std::nearbyint(at));
  }
}

void choose_kmeanspp(const GmmShape& s, int64_t m, const real* x, double* nearest,
                     int32_t* choice) {
  const int64_t n = s.batch, d = s.width;
  for (int64_t k = 0; k < s.options.components; ++k) {
    double total = 0;
    if (k > 0)
      for (int64_t i = 0; i < n; ++i) {
        const real *a = x + i * d, *b = x + choice[k - 1] * d;
        double square = 0;
        for (int64_t j = 0; j < d; ++j) {
          const double e = double(a[j]) - double(b[j]);
          square += e * e;
        }
        nearest[i] = k == 1 ? square : std::min(nearest[i], square);
        total += nearest[i];
      }
    const double u = uniform(s.options.seed, m, k);
    int64_t pick = std::min(int64_t(u * double(n)), n - 1);  // first, or all rows already chosen
    if (total > 0 && std::isfinite(total)) {
      double left = u * total;
      for (int64_t i = 0; i < n; ++i) {
        if (nearest[i] <= 0) continue;
        pick = i;
        if ((left -= nearest[i]) < 0) break;
      }
    }
    choice[k] = int32_t(pick);
  }
}

// Mean and biased variance of column j, not floored.
void column_moments(const real* x, int64_t n, int64_t d, int64_t j, double& mean,
                    double& variance) {
  mean = variance = 0;
  for (int64_t i = 0; i < n; ++i) mean += double(x[i * d + j]);
  mean /= double(n);
  for (int64_t i = 0; i < n; ++i) {
    const double e = double(x[i * d + j]) - mean;
    variance += e * e;
  }
  variance /= double(n);
}

void start(const GmmShape& s, int64_t m, const real* x, double* nearest, int32_t* choice,
           Parameters<real> p) {
  const int64_t n = s.batch, k = s.options.components, d = s.width;
  if (n < k)
    for (int64_t i = 0; i < k; ++i) choice[i] = int32_t(i % n);
  else if (s.options.init == GmmInit::linspace)
    choose_linspace(n, k, choice);
  else
    choose_kmeanspp(s, m, x, nearest, choice);
  for (int64_t j = 0; j < d; ++j) {
    double mean, variance;
    column_moments(x, n, d, j, mean, variance);
    p.variances[j] = std::max(real(variance), real(s.options.variance_floor));
  }
  for (int64_t i = 0; i < k; ++i) {
    p.weights[i] = real(1 / double(k));
    std::copy_n(x + choice[i] * d, d, p.means + i * d);
    if (i > 0) std::copy_n(p.variances, d, p.variances + i * d);
  }
}

// ---- steps -------------------------------------------------------------------------------------

// gamma [B, K] from the parameters; leaves the precisions in the scratch.
void expectation(const Problem& q, Parameters<const real> p, real* gamma) {
  const int64_t K = q.components, d = q.width;
  for (int64_t k = 0; k < K; ++k) {
    double log_det = 0;
    for (int64_t j = 0; j < d; ++j) {
      q.precision[k * d + j] = 1 / p.variances[k * d + j];
      log_det += double(std::log(p.variances[k * d + j]));
    }
    q.log_scale[k] = real(std::log(std::max(double(p.weights[k]), kWeightFloor)) - 0.5 * log_det);
  }
  for (int64_t n = 0; n < q.batch; ++n) {
    const real* x = q.x + n * d;
    real *row = gamma + n * K, top = -std::numeric_limits<real>::infinity(), sum = 0;
    for (int64_t k = 0; k < K; ++k) {
      const real *mu = p.means + k * d, *w = q.precision + k * d;
      real square = 0;
#pragma omp simd reduction(+ : square)
      for (int64_t j = 0; j < d; ++j) {
        const real e = x[j] - mu[j];
        square += e * e * w[j];
      }
      row[k] = q.log_scale[k] - real(0.5) * square;
      top = std::max(top, row[k]);
    }
    for (int64_t k = 0; k < K; ++k) sum += row[k] = std::exp(row[k] - top);
    for (int64_t k = 0; k < K; ++k) row[k] /= sum;
  }
}

real count(const Problem& q, const real* gamma, int64_t k) {
  real sum = 0;
  for (int64_t n = 0; n < q.batch; ++n) sum += gamma[n * q.components + k];
  return sum;
}

void maximisation(const Problem& q, const real* gamma, double floor, Parameters<real> p) {
  const int64_t K = q.components, d = q.width;
  for (int64_t k = 0; k < K; ++k) {
    const real raw = count(q, gamma, k), n_k = std::max(raw, real(kCountFloor));
    p.weights[k] = n_k / real(q.batch);
    real *mu = p.means + k * d, *v = p.variances + k * d;
    std::fill(mu, mu + d, real(0));
    std::fill(v, v + d, real(0));
    for (int64_t n = 0; n < q.batch; ++n) {
      const real g = gamma[n * K + k] / n_k, *x = q.x + n * d;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) mu[j] += g * x[j];
    }
    for (int64_t n = 0; n < q.batch; ++n) {
      const real g = gamma[n * K + k] / n_k, *x = q.x + n * d;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) v[j] += g * (x[j] - mu[j]) * (x[j] - mu[j]);
    }
    // E[x^2] - mu^2 = variance about mu, plus what the floor of N_k leaves of mu^2.
    const real missing = raw < real(kCountFloor) ? 1 - raw / n_k : real(0);
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) v[j] = std::max(v[j] + missing * mu[j] * mu[j], real(floor));
  }
}

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

// ---- one modality ------------------------------------------------------------------------------

void check(const GmmShape& s, In x, In weights, In means, In variances, In posteriors, In history,
           std::span<const int32_t> choice, size_t needed, Scratch scratch) {
  const int64_t m = s.modalities, k = s.options.components, d = s.width;
  expect(m >= 0 && s.batch >= 1 && d >= 0 && k >= 1 && s.options.iterations >= 0,
         "gmm: sizes out of range");
  expect(s.options.variance_floor > 0, "gmm: variance_floor must be positive");
  expect(std::ssize(x) == m * s.batch * d, "gmm: x must be [M, B, d]");
  expect(std::ssize(weights) == m * k, "gmm: weights must be [M, K]");
  expect(std::ssize(means) == m * k * d && std::ssize(variances) == m * k * d,
         "gmm: means and variances must be [M, K, d]");
  expect(std::ssize(posteriors) == m * s.batch * k, "gmm: posteriors must be [M, B, K]");
  expect(std::ssize(history) == m * s.options.iterations * history_size(s),
         "gmm: history must be [M, iterations, K (1 + 2 d)]");
  expect(std::ssize(choice) == m * k, "gmm: choice must be [M, K]");
  expect(scratch.size() >= needed, "gmm: scratch too small");
}

// Per modality, in elements of real and double.
int64_t real_scratch(const GmmShape& s) {
  const int64_t k = s.options.components, d = s.width;
  return 2 * s.batch * k + 3 * k * d + 2 * k;
}

}  // namespace

size_t gmm_scratch_bytes(const Cpu&, const GmmShape& s) {
  return size_t(s.modalities) * (carve_bytes<real>(real_scratch(s)) + carve_bytes<double>(s.batch));
}

void gmm_forward(const Cpu& be, const GmmShape& s, In x, Out weights, Out means, Out variances,
                 Out posteriors, Out marginals, Out history, std::span<int32_t> choice,
                 Scratch scratch) {
  check(s, x, weights, means, variances, posteriors, history, choice, gmm_scratch_bytes(be, s),
        scratch);
  expect(marginals.size() == weights.size(), "gmm: marginals must be [M, K]");
  const int64_t n = s.batch, K = s.options.components, d = s.width, steps = s.options.iterations;
  parallel_for(be, s.modalities, [&](int64_t m) {
    Scratch mine = scratch.subspan(size_t(m) * (gmm_scratch_bytes(be, s) / size_t(s.modalities)));
    double* nearest = carve<double>(mine, n);
    real* work = carve<real>(mine, real_scratch(s));
    const Problem q{n, K, d, x.data() + m * n * d, work, work + K * d};
    real* gamma = posteriors.data() + m * n * K;
    const auto at = [&](int64_t step) {
      return step < steps ? step_parameters(s, history.data(), m, step)
                          : final_parameters(s, m, weights.data(), means.data(), variances.data());
    };
    start(s, m, q.x, nearest, choice.data() + m * K, at(0));
    for (int64_t step = 0; step <= steps; ++step) {
      const Parameters<real> p = at(step);
      expectation(q, {p.weights, p.means, p.variances}, gamma);
      if (step < steps) maximisation(q, gamma, s.options.variance_floor, at(step + 1));
    }
    double total = 0;
    for (int64_t k = 0; k < K; ++k) total += double(count(q, gamma, k)) / double(n);
    for (int64_t k = 0; k < K; ++k)
      marginals[size_t(m * K + k)] =
          real(double(count(q, gamma, k)) / double(n) / std::max(total, kMassFloor));
  });
}

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
