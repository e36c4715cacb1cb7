#include "kernels/cpu/gmm_products.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/carve.h"

namespace decalign::inline DECALIGN_REAL::mixture {
namespace {

template <class D, class R>
void for_arrays(ProductProblem& q, D&& doubles, R&& reals) {
  const int64_t M = q.modalities, K = q.components, d = q.width, S = q.iterations + 1;
  doubles(q.history, S * M * q.parameters_size());
  doubles(q.counts, S * M * K);
  doubles(q.spread, M * d);
  doubles(q.sums, M * q.chunks * q.parameters_size());
  doubles(q.row_sums, M * q.chunks);
  doubles(q.dparameters, M * q.parameters_size());
  doubles(q.nearest, M * q.batch);
  reals(q.shift, M * d);
  reals(q.scale, M * d);
  reals(q.logit_matrix, M * q.packed_logits());
  reals(q.logit_bias, M * K);
  reals(q.dgamma_matrix, M * q.packed_logits());
  reals(q.dgamma_bias, M * K);
  reals(q.dx_matrix, M * q.packed_dx());
  reals(q.plain, M * q.plain_size());
  reals(q.buffers, M * q.chunks * q.buffer_size());
}

ProductProblem sized(const GmmShape& s) {
  ProductProblem q;
  q.modalities = s.modalities;
  q.batch = s.batch;
  q.width = s.width;
  q.components = s.options.components;
  q.iterations = s.options.iterations;
  q.floor = s.options.variance_floor;
  q.chunk = std::max(q.kSmallestChunk, piece_count(q.batch, q.kLargestChunks));
  q.chunks = piece_count(q.batch, q.chunk);
  return q;
}

// Sums of x - first row and of its squares over the task's rows.
void column_sums(const ProductProblem& q, const ProductTask& t, const real* x) {
  const int64_t d = q.width;
  double *sum = q.chunk_sums(t.m, t.c), *square = sum + d;
  std::fill_n(sum, 2 * d, 0.0);
  for (int64_t n = t.first; n < t.last; ++n) {
    const real* row = x + n * d;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) {
      const double e = double(row[j]) - double(x[j]);
      sum[j] += e;
      square[j] += e * e;
    }
  }
}

// Batch mean and variance, and the parameters of step 0.
void start(const ProductProblem& q, int64_t m, const real* x, const int32_t* choice) {
  const int64_t K = q.components, d = q.width;
  const Parameters p = q.parameters(0, m);
  for (int64_t j = 0; j < d; ++j) {
    double sum = 0, square = 0;
    for (int64_t c = 0; c < q.chunks; ++c) {
      sum += q.chunk_sums(m, c)[j];
      square += q.chunk_sums(m, c)[d + j];
    }
    const auto column = gmm_column::standard(double(x[j]), sum, square, double(q.batch));
    q.spread[m * d + j] = column.variance;
    q.shift[m * d + j] = column.shift;
    q.scale[m * d + j] = column.scale;
    for (int64_t k = 0; k < K; ++k) {
      p.means[k * d + j] = double(x[choice[k] * d + j]);
      p.variances[k * d + j] = std::max(column.variance, q.floor);
    }
  }
  std::fill_n(p.weights, K, 1 / double(K));
}

// f(first row, rows) for the task's tiles; sums are promoted every few tiles.
template <class F>
void for_tiles(const ProductProblem& q, const ProductTask& t, F&& f) {
  std::fill_n(q.chunk_sums(t.m, t.c), q.parameters_size(), 0.0);
  int64_t count = 0;
  for (int64_t n = t.first; n < t.last; n += q.kRows) {
    f(n, std::min(q.kRows, t.last - n));
    if (++count % q.kPromote == 0 || n + q.kRows >= t.last) flush_moments(q, t);
  }
}

// Parameters of `step` from the sums under the posteriors of the step before.
void maximisation(const ProductProblem& q, int64_t step, int64_t m) {
  const int64_t K = q.components, d = q.width;
  add_chunk_sums(q, m);
  const double *count = q.chunk_sums(m, 0), *moments = count + K;
  const Parameters p = q.parameters(step, m);
  for (int64_t k = 0; k < K; ++k) {
    const double raw = count[k], n_k = std::max(raw, kCountFloor);
    q.count(step - 1, m)[k] = raw;
    p.weights[k] = n_k / double(q.batch);
    for (int64_t j = 0; j < d; ++j) {
      const double *square = moments + k * 2 * d, *plain = square + d;
      const auto e = gmm_column::estimate(plain[j], square[j], n_k, raw / n_k, q.shift_of(m, j),
                                          q.scale_of(m, j));
      p.means[k * d + j] = e.mean;
      p.variances[k * d + j] = std::max(e.variance, q.floor_of(m, j));
    }
  }
}

void write_marginals(const ProductProblem& q, int64_t m, Out marginals) {
  const double *count = q.count(q.iterations, m), n = double(q.batch);
  double total = 0;
  for (int64_t k = 0; k < q.components; ++k) total += count[k] / n;
  for (int64_t k = 0; k < q.components; ++k)
    marginals[size_t(m * q.components + k)] = real(count[k] / n / std::max(total, kMassFloor));
}

// Softmax in place; log of the sum of the exponentials if `likelihood`.
double softmax(real* l, int64_t K, bool likelihood) {
  const real none = -std::numeric_limits<real>::infinity();
  vreal most = broadcast(none), sum{};
  for (int64_t k = 0; k < K; k += kLanes)
    most = vmax(load_partial(l + k, std::min(kLanes, K - k), none), most);
  const real top = max_lanes(most);
  for (int64_t k = 0; k < K; k += kLanes) {
    const int64_t count = std::min(kLanes, K - k);
    const vreal e = vexp(load_partial(l + k, count, none) - top);
    sum += e;
    store_partial(l + k, e, count);
  }
  const real total = sum_lanes(sum), inverse = 1 / total;
  for (int64_t k = 0; k < K; k += kLanes) {
    const int64_t count = std::min(kLanes, K - k);
    store_partial(l + k, load_partial(l + k, count) * inverse, count);
  }
  return likelihood ? double(top) + std::log(double(total)) : 0;
}

}  // namespace

bool by_products(const GmmShape& s) {
  return s.options.covariance == GmmCovariance::diagonal &&
         s.options.arithmetic == GmmArithmetic::products;
}

ProductProblem product_problem(const GmmShape& s, Scratch state) {
  ProductProblem q = sized(s);
  for_arrays(
      q, [&](double*& p, int64_t n) { p = carve<double>(state, n); },
      [&](real*& p, int64_t n) { p = carve<real>(state, n); });
  return q;
}

size_t products_state_bytes(const GmmShape& s) {
  ProductProblem q = sized(s);
  size_t bytes = 0;
  for_arrays(
      q, [&](double*&, int64_t n) { bytes += carve_bytes<double>(n); },
      [&](real*&, int64_t n) { bytes += carve_bytes<real>(n); });
  return bytes;
}

ProductTask product_task(const ProductProblem& q, int64_t index) {
  const int64_t K = q.components, d = q.width;
  real* buffer = q.buffers + index * q.buffer_size();
  const auto take = [&](int64_t n) { return std::exchange(buffer, buffer + n); };
  ProductTask t;
  t.m = index / q.chunks;
  t.c = index % q.chunks;
  t.first = t.c * q.chunk;
  t.last = std::min(q.batch, t.first + q.chunk);
  t.features = take(q.kRows * 2 * d);
  t.second = take(q.kRows * q.second_width());
  t.posterior = take(q.kRows * K);
  t.pair = take(q.kRows * 2 * K);
  t.moments = take(K * 2 * d);
  t.total = take(K);
  std::fill_n(t.moments, K * (2 * d + 1), real(0));
  return t;
}

void prepare_logits(const ProductProblem& q, int64_t step, int64_t m) {
  const int64_t K = q.components, d = q.width;
  const Parameters p = q.parameters(step, m);
  real* plain = q.plain + m * q.plain_size();
  for (int64_t k = 0; k < K; ++k) {
    double constant =
        std::log(std::max(p.weights[k], kWeightFloor)) - 0.5 * log_product(p.variances + k * d, d);
    for (int64_t j = 0; j < d; ++j) {
      const auto terms = gmm_column::logit_terms(q.column(m, p, k, j));
      plain[j * K + k] = real(terms.square);
      plain[(d + j) * K + k] = real(terms.plain);
      constant += terms.constant;
    }
    q.logit_bias[m * K + k] = real(constant);
  }
  pack(plain, K, 2 * d, K, q.logit_matrix + m * q.packed_logits());
}

void standardise(const ProductProblem& q, int64_t m, const real* x, int64_t rows, real* features) {
  const int64_t d = q.width;
  const real *shift = q.shift + m * d, *scale = q.scale + m * d;
  for (int64_t n = 0; n < rows; ++n) {
    const real* row = x + n * d;
    real *square = features + n * 2 * d, *plain = square + d;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) {
      const real e = (row[j] - shift[j]) * scale[j];
      square[j] = e * e;
      plain[j] = e;
    }
  }
}

double tile_posteriors(const ProductProblem& q, const ProductTask& t, int64_t rows,
                       bool likelihood) {
  const int64_t K = q.components, d = q.width;
  multiply(rows, 2 * d, K, t.features, 2 * d, q.logit_matrix + t.m * q.packed_logits(),
           q.logit_bias + t.m * K, t.posterior, K, Store::overwrite);
  double sum = 0;
  for (int64_t n = 0; n < rows; ++n) sum += softmax(t.posterior + n * K, K, likelihood);
  return sum;
}

void add_moments(const ProductProblem& q, const ProductTask& t, int64_t rows, const real* a,
                 int64_t lda) {
  const int64_t K = q.components, d = q.width;
  add_outer(rows, K, 2 * d, a, lda, t.features, 2 * d, t.moments, 2 * d);
  add_columns(rows, K, a, lda, t.total);
}

void flush_moments(const ProductProblem& q, const ProductTask& t) {
  double* sums = q.chunk_sums(t.m, t.c);
  const auto move = [](real* from, int64_t n, double* to) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] += double(from[i]), from[i] = 0;
  };
  move(t.total, q.components, sums);
  move(t.moments, q.components * 2 * q.width, sums + q.components);
}

void add_chunk_sums(const ProductProblem& q, int64_t m) {
  double* total = q.chunk_sums(m, 0);
  for (int64_t c = 1; c < q.chunks; ++c) {
    const double* more = q.chunk_sums(m, c);
#pragma omp simd
    for (int64_t i = 0; i < q.parameters_size(); ++i) total[i] += more[i];
  }
}

void products_forward(const Cpu& be, const GmmShape& s, In x, Out weights, Out means, Out variances,
                      Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                      Scratch state) {
  const ProductProblem q = product_problem(s, state);
  const int64_t M = q.modalities, K = q.components, d = q.width, last = q.iterations;
  const auto rows_of = [&](int64_t m) { return x.data() + m * q.batch * d; };
  const auto chunks = [&](auto&& f) {
    parallel_for(be, M * q.chunks, [&](int64_t i) { f(product_task(q, i)); });
  };
  chunks([&](const ProductTask& t) { column_sums(q, t, rows_of(t.m)); });
  parallel_for(be, M, [&](int64_t m) {
    int32_t* rows = choice.data() + m * K;
    choose_rows(s, m, rows_of(m), q.nearest + m * q.batch, rows);
    start(q, m, rows_of(m), rows);
  });
  std::fill_n(q.count(last, 0), M * K, 0.0);
  const bool outputs = !posteriors.empty() || !marginals.empty() || !log_likelihood.empty();
  for (int64_t step = 0; step < last + (outputs ? 1 : 0); ++step) {
    parallel_for(be, M, [&](int64_t m) { prepare_logits(q, step, m); });
    chunks([&](const ProductTask& t) {
      double likelihood = 0;
      for_tiles(q, t, [&](int64_t n, int64_t rows) {
        standardise(q, t.m, rows_of(t.m) + n * d, rows, t.features);
        likelihood += tile_posteriors(q, t, rows, step == last);
        if (step < last) return add_moments(q, t, rows, t.posterior, K);
        add_columns(rows, K, t.posterior, K, t.total);
        if (!posteriors.empty())
          std::copy_n(t.posterior, rows * K, posteriors.data() + (t.m * q.batch + n) * K);
      });
      q.row_sums[t.m * q.chunks + t.c] = likelihood;
    });
    if (step < last) parallel_for(be, M, [&](int64_t m) { maximisation(q, step + 1, m); });
  }
  for (int64_t m = 0; m < M; ++m) {
    const Parameters p = q.parameters(last, m);
    std::copy_n(p.weights, K, weights.data() + m * K);
    std::copy_n(p.means, K * d, means.data() + m * K * d);
    std::copy_n(p.variances, K * d, variances.data() + m * K * d);
    if (!outputs) continue;
    add_chunk_sums(q, m);
    std::copy_n(q.chunk_sums(m, 0), K, q.count(last, m));
    if (!marginals.empty()) write_marginals(q, m, marginals);
    double sum = 0;
    for (int64_t c = 0; c < q.chunks; ++c) sum += q.row_sums[m * q.chunks + c];
    if (!log_likelihood.empty())
      log_likelihood[size_t(m)] =
          real(sum / double(q.batch) - 0.5 * double(d) * std::log(2 * std::numbers::pi));
  }
}

}  // namespace decalign::inline DECALIGN_REAL::mixture
