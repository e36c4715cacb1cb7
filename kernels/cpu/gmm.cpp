#include "kernels/check/gmm.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/carve.h"
#include "kernels/cpu/gmm_full.h"
#include "kernels/cpu/gmm_products.h"

namespace decalign::inline DECALIGN_REAL {
namespace mixture {
namespace {

// gamma of one step from its parameters; the sum over the rows of log sum_k exp(logit).
double expectation(const Problem& q, const Parameters& p, double* gamma) {
  const int64_t K = q.components, d = q.width;
  double all = 0;
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
    all += top + std::log(sum);
  }
  return all;
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

// Fills history and posteriors from the start at the rows `choice`; the mean log-likelihood.
double run_em(const Problem& q, const int32_t* choice) {
  start(q, choice, q.parameters(0));
  for (int64_t step = 0; step < q.iterations; ++step) {
    expectation(q, q.parameters(step), q.gamma(step));
    maximisation(q, q.gamma(step), q.parameters(step + 1));
  }
  return expectation(q, q.parameters(q.iterations), q.gamma(q.iterations)) / double(q.batch) -
         0.5 * double(q.width) * std::log(2 * std::numbers::pi);
}

}  // namespace

// The mantissas are multiplied, for a logarithm costs as much as many products.
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

using namespace mixture;

namespace {

size_t direct_state_bytes(const GmmShape& s) {
  const int64_t n = s.batch, K = s.options.components, d = s.width, steps = s.options.iterations;
  size_t bytes = 0;
  for (const int64_t elements : {n * d, (steps + 1) * K * (1 + 2 * d), (steps + 1) * n * K, K * d,
                                 K, n, n * K, K * (1 + 2 * d), n * d})
    bytes += carve_bytes<double>(elements);
  return size_t(s.modalities) * bytes;
}

void write_posteriors(const Problem& q, int64_t m, Out posteriors, Out marginals) {
  const int64_t n = q.batch, K = q.components;
  const double* gamma = q.gamma(q.iterations);
  if (!posteriors.empty()) std::copy_n(gamma, n * K, posteriors.data() + m * n * K);
  if (marginals.empty()) return;
  double total = 0;
  for (int64_t k = 0; k < K; ++k) total += count(q, gamma, k) / double(n);
  for (int64_t k = 0; k < K; ++k)
    marginals[size_t(m * K + k)] =
        real(count(q, gamma, k) / double(n) / std::max(total, kMassFloor));
}

void direct_forward(const Cpu& be, const GmmShape& s, In x, Out weights, Out means, Out variances,
                    Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                    Scratch state) {
  const int64_t n = s.batch, K = s.options.components, d = s.width;
  parallel_for(be, s.modalities, [&](int64_t m) {
    const Problem q = problem(s, m, state);
    for (int64_t i = 0; i < n * d; ++i) q.x[i] = double(x[size_t(m * n * d + i)]);
    int32_t* rows = choice.data() + m * K;
    choose_rows(s, m, x.data() + m * n * d, q.nearest, rows);
    const double likelihood = run_em(q, rows);
    const Parameters p = q.parameters(q.iterations);
    std::copy_n(p.weights, K, weights.data() + m * K);
    std::copy_n(p.means, K * d, means.data() + m * K * d);
    std::copy_n(p.variances, K * d, variances.data() + m * K * d);
    write_posteriors(q, m, posteriors, marginals);
    if (!log_likelihood.empty()) log_likelihood[size_t(m)] = real(likelihood);
  });
}

}  // namespace

size_t gmm_state_bytes(const Cpu&, const GmmShape& s) {
  if (s.options.covariance == GmmCovariance::full) return full_state_bytes(s);
  return by_products(s) ? products_state_bytes(s) : direct_state_bytes(s);
}

void gmm_forward(const Cpu& be, const GmmShape& s, In x, Out weights, Out means, Out covariances,
                 Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                 Scratch state) {
  const size_t needed = gmm_state_bytes(be, s);
  check_gmm_forward(s, x, weights, means, covariances, posteriors, marginals, log_likelihood,
                    choice, state, needed);
  const auto run = s.options.covariance == GmmCovariance::full ? full_forward
                   : by_products(s)                            ? products_forward
                                                               : direct_forward;
  run(be, s, x, weights, means, covariances, posteriors, marginals, log_likelihood, choice,
      state.first(needed));
}

}  // namespace decalign::inline DECALIGN_REAL
