#include <cmath>
#include <limits>

#include "kernels/cpu/carve.h"
#include "kernels/cpu/gmm_steps.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {
namespace mixture {

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

int64_t real_scratch(const GmmShape& s) {
  const int64_t k = s.options.components, d = s.width;
  return 2 * s.batch * k + 3 * k * d + 2 * k;
}

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

}  // namespace mixture

namespace {

using namespace mixture;

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

}  // namespace decalign::inline DECALIGN_REAL
