#include "kernels/check/gmm.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/carve.h"
#include "kernels/cpu/gmm_steps.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {
namespace mixture {
namespace {

// sum of log v: the mantissas are multiplied, for a logarithm costs as much as many products.
double log_product(const double* v, int64_t n) {
  constexpr int64_t kSafe = 512;  // products of numbers in [0.5, 1) that stay normal
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSafe) {
    double mantissa = 1;
    int64_t exponents = 0;
    for (int64_t i = begin; i < std::min(n, begin + kSafe); ++i) {
      int exponent;
      mantissa *= std::frexp(v[i], &exponent);
      exponents += exponent;
    }
    sum += std::log(mantissa) + double(exponents) * std::numbers::ln2;
  }
  return sum;
}

// gamma of one step from its parameters.
void expectation(const Problem& q, const Parameters& p, double* gamma) {
  const int64_t K = q.components, d = q.width;
  set_precisions(q, p);
  for (int64_t k = 0; k < K; ++k) {
    q.log_scale[k] =
        std::log(std::max(p.weights[k], kWeightFloor)) - 0.5 * log_product(p.variances + k * d, d);
  }
  for (int64_t n = 0; n < q.batch; ++n) {
    const double* x = q.x + n * d;
    double *row = gamma + n * K, top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t k = 0; k < K; ++k) {
      const double *mu = p.means + k * d, *w = q.precision + k * d;
      double square = 0;
#pragma omp simd reduction(+ : square)
      for (int64_t j = 0; j < d; ++j) {
        const double e = x[j] - mu[j];
        square += e * e * w[j];
      }
      row[k] = q.log_scale[k] - 0.5 * square;
      top = std::max(top, row[k]);
    }
    for (int64_t k = 0; k < K; ++k) sum += row[k] = std::exp(row[k] - top);
    for (int64_t k = 0; k < K; ++k) row[k] /= sum;
  }
}

void maximisation(const Problem& q, const double* gamma, const Parameters& p) {
  const int64_t K = q.components, d = q.width;
  for (int64_t k = 0; k < K; ++k) {
    const double raw = count(q, gamma, k), n_k = std::max(raw, kCountFloor);
    p.weights[k] = n_k / double(q.batch);
    double *mu = p.means + k * d, *v = p.variances + k * d;
    std::fill(mu, mu + d, 0.0);
    std::fill(v, v + d, 0.0);
    for (int64_t n = 0; n < q.batch; ++n) {
      const double g = gamma[n * K + k] / n_k, *x = q.x + n * d;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) mu[j] += g * x[j];
    }
    for (int64_t n = 0; n < q.batch; ++n) {
      const double g = gamma[n * K + k] / n_k, *x = q.x + n * d;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) v[j] += g * (x[j] - mu[j]) * (x[j] - mu[j]);
    }
    // E[x^2] - mu^2 = variance about mu, plus what the floor of N_k leaves of mu^2.
    const double missing = raw < kCountFloor ? 1 - raw / n_k : 0;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) v[j] = std::max(v[j] + missing * mu[j] * mu[j], q.floor);
  }
}

void start(const Problem& q, const int32_t* choice, const Parameters& p) {
  const int64_t K = q.components, d = q.width;
  for (int64_t j = 0; j < d; ++j) {
    double mean, variance;
    column_moments(q, j, mean, variance);
    p.variances[j] = std::max(variance, q.floor);
  }
  for (int64_t k = 0; k < K; ++k) {
    p.weights[k] = 1 / double(K);
    std::copy_n(q.x + choice[k] * d, d, p.means + k * d);
    if (k > 0) std::copy_n(p.variances, d, p.variances + k * d);
  }
}

// Fills history and posteriors from the start at the rows `choice`.
void run_em(const Problem& q, const int32_t* choice) {
  start(q, choice, q.parameters(0));
  for (int64_t step = 0; step <= q.iterations; ++step) {
    expectation(q, q.parameters(step), q.gamma(step));
    if (step < q.iterations) maximisation(q, q.gamma(step), q.parameters(step + 1));
  }
}

}  // namespace

Problem problem(const GmmShape& s, int64_t m, Scratch state) {
  const int64_t n = s.batch, K = s.options.components, d = s.width, steps = s.options.iterations;
  const size_t share = state.size() / size_t(s.modalities) / 64 * 64;
  Scratch mine = state.subspan(size_t(m) * share);
  Problem q;
  q.batch = n;
  q.components = K;
  q.width = d;
  q.iterations = steps;
  q.floor = s.options.variance_floor;
  const auto take = [&](int64_t elements) { return carve<double>(mine, elements); };
  q.x = take(n * d);
  q.history = take((steps + 1) * K * (1 + 2 * d));
  q.posteriors = take((steps + 1) * n * K);
  q.precision = take(K * d);
  q.log_scale = take(K);
  q.nearest = take(n);
  q.dgamma = take(n * K);
  q.dparameters = take(K * (1 + 2 * d));
  q.dx = take(n * d);
  return q;
}

void column_moments(const Problem& q, int64_t j, double& mean, double& variance) {
  mean = variance = 0;
  for (int64_t i = 0; i < q.batch; ++i) mean += q.x[i * q.width + j];
  mean /= double(q.batch);
  for (int64_t i = 0; i < q.batch; ++i) {
    const double e = q.x[i * q.width + j] - mean;
    variance += e * e;
  }
  variance /= double(q.batch);
}

void set_precisions(const Problem& q, const Parameters& p) {
  for (int64_t i = 0; i < q.components * q.width; ++i) q.precision[i] = 1 / p.variances[i];
}

double count(const Problem& q, const double* gamma, int64_t k) {
  double sum = 0;
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

void choose_kmeanspp(const Problem& q, uint64_t seed, int64_t m, int32_t* choice) {
  const int64_t n = q.batch, d = q.width;
  for (int64_t k = 0; k < q.components; ++k) {
    double total = 0;
    if (k > 0)
      for (int64_t i = 0; i < n; ++i) {
        const double *a = q.x + i * d, *b = q.x + choice[k - 1] * d;
        double square = 0;
        for (int64_t j = 0; j < d; ++j) square += (a[j] - b[j]) * (a[j] - b[j]);
        q.nearest[i] = k == 1 ? square : std::min(q.nearest[i], square);
        total += q.nearest[i];
      }
    const double u = uniform(seed, m, k);
    int64_t pick = std::min(int64_t(u * double(n)), n - 1);  // first, or all rows already chosen
    if (total > 0 && std::isfinite(total)) {
      double left = u * total;
      for (int64_t i = 0; i < n; ++i) {
        if (q.nearest[i] <= 0) continue;
        pick = i;
        if ((left -= q.nearest[i]) < 0) break;
      }
    }
    choice[k] = int32_t(pick);
  }
}

uint64_t seed_of(const GmmOptions& o) {
  return o.seed + (o.random ? o.random->seed + o.random->step : 0);
}

void choose(const Problem& q, const GmmOptions& options, int64_t m, int32_t* choice) {
  if (q.batch < q.components)
    for (int64_t k = 0; k < q.components; ++k) choice[k] = int32_t(k % q.batch);
  else if (options.init == GmmInit::linspace)
    choose_linspace(q.batch, q.components, choice);
  else
    choose_kmeanspp(q, seed_of(options), m, choice);
}

}  // namespace

size_t gmm_state_bytes(const Cpu&, const GmmShape& s) {
  const int64_t n = s.batch, K = s.options.components, d = s.width, steps = s.options.iterations;
  size_t bytes = 0;
  for (const int64_t elements : {n * d, (steps + 1) * K * (1 + 2 * d), (steps + 1) * n * K, K * d,
                                 K, n, n * K, K * (1 + 2 * d), n * d})
    bytes += carve_bytes<double>(elements);
  return size_t(s.modalities) * bytes;
}

void gmm_forward(const Cpu& be, const GmmShape& s, In x, Out weights, Out means, Out variances,
                 Out posteriors, Out marginals, std::span<int32_t> choice, Scratch state) {
  const int64_t n = s.batch, K = s.options.components, d = s.width;
  const size_t needed = gmm_state_bytes(be, s);
  check_gmm_forward(s, x, weights, means, variances, posteriors, marginals, choice, state, needed);
  parallel_for(be, s.modalities, [&](int64_t m) {
    const Problem q = problem(s, m, state.first(needed));
    for (int64_t i = 0; i < n * d; ++i) q.x[i] = double(x[size_t(m * n * d + i)]);
    int32_t* rows = choice.data() + m * K;
    choose(q, s.options, m, rows);
    run_em(q, rows);
    const Parameters p = q.parameters(q.iterations);
    const double* gamma = q.gamma(q.iterations);
    std::copy_n(p.weights, K, weights.data() + m * K);
    std::copy_n(p.means, K * d, means.data() + m * K * d);
    std::copy_n(p.variances, K * d, variances.data() + m * K * d);
    std::copy_n(gamma, n * K, posteriors.data() + m * n * K);
    double total = 0;
    for (int64_t k = 0; k < K; ++k) total += count(q, gamma, k) / double(n);
    for (int64_t k = 0; k < K; ++k)
      marginals[size_t(m * K + k)] =
          real(count(q, gamma, k) / double(n) / std::max(total, kMassFloor));
  });
}

}  // namespace decalign::inline DECALIGN_REAL
