// EM with full covariances: the forward pass.
#include "kernels/cpu/gmm_full.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/carve.h"

namespace decalign::inline DECALIGN_REAL::mixture {
namespace {

constexpr int64_t kLargestChunks = 16, kSmallestChunk = 256, kTasks = 24;

// Arrays of the state, in order: visit(pointer, elements).
template <class F>
void for_arrays(FullProblem& q, F&& visit) {
  const int64_t M = q.modalities, MK = M * q.components, d = q.width, S = q.iterations + 1;
  visit(q.x, M * q.tiles * d * kTileRows);
  visit(q.weights, S * MK);
  visit(q.counts, S * MK);
  visit(q.means, S * MK * d);
  visit(q.factors, S * MK * q.matrix());
  visit(q.centre, M * d);
  visit(q.rho, M);
  visit(q.logits, MK * q.padded());
  visit(q.row_sums, M * q.chunks);
  visit(q.partial, MK * q.chunks * q.partial_size());
  visit(q.buffers, q.tasks() * q.buffer_size());
  visit(q.nearest, M * q.batch);
  visit(q.dgamma, MK * q.padded());
  visit(q.dweights, MK);
  visit(q.dmeans, MK * d);
  visit(q.dcovariances, MK * q.matrix());
  visit(q.dx, q.groups * M * q.tiles * d * kTileRows);
  visit(q.drho, MK);
  visit(q.traces, MK);
  visit(q.inverses, 2 * MK * q.matrix());
}

FullProblem sized(const GmmShape& s) {
  FullProblem q;
  q.modalities = s.modalities;
  q.batch = s.batch;
  q.width = s.width;
  q.components = s.options.components;
  q.iterations = s.options.iterations;
  q.floor = s.options.variance_floor;
  q.ridge = s.options.ridge;
  q.stride = matrix_stride(q.width);
  q.tiles = piece_count(q.batch, kTileRows);
  q.chunk = round_up(std::max(kSmallestChunk, piece_count(q.batch, kLargestChunks)), kTileRows);
  q.chunks = piece_count(q.batch, q.chunk);
  q.groups =
      std::min(q.components, piece_count(kTasks, std::max<int64_t>(q.modalities * q.chunks, 1)));
  return q;
}

void load_tiles(const FullProblem& q, int64_t m, const real* x) {
  const int64_t d = q.width;
  for (int64_t t = 0; t < q.tiles; ++t) {
    double* tile = q.x + (m * q.tiles + t) * d * kTileRows;
    for (int64_t l = 0; l < kTileRows; ++l) {
      const real* row = x + std::min(t * kTileRows + l, q.batch - 1) * d;
      for (int64_t j = 0; j < d; ++j) tile[j * kTileRows + l] = double(row[j]);
    }
  }
}

// to [rows, stride] = x - mean, zeros beyond column d; to scaled by weight [rows] if not null.
void expand(const FullProblem& q, const real* x, int64_t rows, const double* mean,
            const double* weight, double* plain, double* scaled) {
  const int64_t d = q.width, ld = q.stride;
  for (int64_t n = 0; n < rows; ++n) {
    const real* from = x + n * d;
    double *e = plain + n * ld, *g = scaled + n * ld;
    const double w = weight ? weight[n] : 1;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) {
      e[j] = double(from[j]) - mean[j];
      g[j] = w * e[j];
    }
    for (int64_t j = d; j < ld; ++j) e[j] = g[j] = 0;
  }
}

// Sums over the task's rows of g, g e and g e e^T, e = x - mean, g = weight or 1.
void moments(const FullProblem& q, const FullTask& t, const real* x, const double* mean,
             const double* weight, double* sums) {
  const int64_t d = q.width, ld = q.stride;
  std::fill_n(sums, q.partial_size(), 0.0);
  for (int64_t n0 = t.first_row; n0 < t.last_row; n0 += q.block()) {
    const int64_t rows = std::min(q.block(), t.last_row - n0);
    const double* w = weight ? weight + n0 : nullptr;
    expand(q, x + n0 * d, rows, mean, w, t.left, t.right);
    for (int64_t n = 0; n < rows; ++n) {
      const double* g = t.right + n * ld;
      sums[0] += w ? w[n] : 1;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) sums[2 + j] += g[j];
    }
    add_symmetric(rows, d, t.right, t.left, q.sum_matrix(sums));
  }
}

void add_chunks(const FullProblem& q, int64_t m, int64_t k) {
  double* total = q.sums(m, k, 0);
  for (int64_t c = 1; c < q.chunks; ++c) {
    const double* more = q.sums(m, k, c);
#pragma omp simd
    for (int64_t i = 0; i < q.partial_size(); ++i) total[i] += more[i];
  }
}

void add_to_diagonal(const FullProblem& q, double* matrix, double value) {
  for (int64_t j = 0; j < q.width; ++j) matrix[j * q.stride + j] += value;
}

void column_means(const FullProblem& q, int64_t m, const real* x) {
  double* centre = q.centre + m * q.width;
  std::fill_n(centre, q.width, 0.0);
  for (int64_t n = 0; n < q.batch; ++n)
    for (int64_t j = 0; j < q.width; ++j) centre[j] += double(x[n * q.width + j]);
  for (int64_t j = 0; j < q.width; ++j) centre[j] /= double(q.batch);
}

// Step 0: every component has the batch's covariance, of which component 0 has the sums.
void start(const FullProblem& q, int64_t m, const real* x, const int32_t* choice) {
  const int64_t d = q.width, K = q.components;
  add_chunks(q, m, 0);
  double *covariance = q.sum_matrix(q.sums(m, 0, 0)), trace = 0;
  for (int64_t i = 0; i < q.matrix(); ++i) covariance[i] /= double(q.batch);
  for (int64_t j = 0; j < d; ++j) trace += covariance[j * q.stride + j];
  q.rho[m] = q.ridge * trace / double(std::max<int64_t>(d, 1)) + q.floor;
  add_to_diagonal(q, covariance, q.rho[m]);
  cholesky(d, q.rho[m], covariance);
  for (int64_t k = 0; k < K; ++k) {
    const int64_t at = q.at(0, m, k);
    q.weights[at] = 1 / double(K);
    for (int64_t j = 0; j < d; ++j) q.means[at * d + j] = double(x[choice[k] * d + j]);
    std::copy_n(covariance, q.matrix(), q.factors + at * q.matrix());
  }
}

// Parameters of `step` from the sums about the means of the step before.
void maximisation(const FullProblem& q, int64_t step, int64_t m, int64_t k) {
  const int64_t d = q.width, ld = q.stride, now = q.at(step, m, k), before = q.at(step - 1, m, k);
  add_chunks(q, m, k);
  const double *sums = q.sums(m, k, 0), *square = q.sum_matrix(q.sums(m, k, 0)), raw = sums[0];
  const double n_k = std::max(raw, kCountFloor), inverse = 1 / n_k;
  q.counts[before] = raw;
  q.weights[now] = n_k / double(q.batch);
  const double* old = q.means + before * d;
  double *mean = q.means + now * d, *factor = q.factors + now * q.matrix();
  if (raw < kCountFloor) {  // too few to say anything
    std::copy_n(old, d, mean);
    std::copy_n(q.factors + before * q.matrix(), q.matrix(), factor);
    return;
  }
  for (int64_t j = 0; j < d; ++j) mean[j] = old[j] + sums[2 + j] * inverse;
  for (int64_t i = 0; i < d; ++i) {
    const double shift = mean[i] - old[i];
    std::fill_n(factor + i * ld, ld, 0.0);
#pragma omp simd
    for (int64_t j = i; j < d; ++j)
      factor[i * ld + j] = square[i * ld + j] * inverse - shift * (mean[j] - old[j]);
  }
  add_to_diagonal(q, factor, q.rho[m]);
  cholesky(d, q.rho[m], factor);
}

void write_component(const FullProblem& q, int64_t m, int64_t k, real* mean, real* covariance) {
  const int64_t d = q.width, at = q.at(q.iterations, m, k);
  std::copy_n(q.means + at * d, d, mean);
  double *u = q.factors + at * q.matrix(), *sigma = q.sum_matrix(q.sums(m, k, 0));
  std::fill_n(sigma, q.matrix(), 0.0);
  clear_below(q, u);
  add_symmetric(d, d, u, u, sigma);
  mirror(q, sigma);
  for (int64_t i = 0; i < d; ++i) std::copy_n(sigma + i * q.stride, d, covariance + i * d);
}

void write_posteriors(const FullProblem& q, int64_t m, Out posteriors, Out marginals,
                      Out log_likelihood) {
  const int64_t n = q.batch, K = q.components;
  double total = 0, sum = 0;
  for (int64_t k = 0; k < K; ++k) {
    const double *gamma = q.row(q.logits, m, k), raw = row_sum(gamma, n);
    q.counts[q.at(q.iterations, m, k)] = raw;
    total += raw / double(n);
    if (!posteriors.empty())
      for (int64_t i = 0; i < n; ++i) posteriors[size_t((m * n + i) * K + k)] = real(gamma[i]);
  }
  if (!marginals.empty())
    for (int64_t k = 0; k < K; ++k)
      marginals[size_t(m * K + k)] =
          real(q.counts[q.at(q.iterations, m, k)] / double(n) / std::max(total, kMassFloor));
  for (int64_t c = 0; c < q.chunks; ++c) sum += q.row_sums[m * q.chunks + c];
  if (!log_likelihood.empty())
    log_likelihood[size_t(m)] =
        real(sum / double(n) - 0.5 * double(q.width) * std::log(2 * std::numbers::pi));
}

}  // namespace

double row_sum(const double* v, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += v[i];
  return sum;
}

void clear_below(const FullProblem& q, double* u) {
  for (int64_t i = 0; i < q.width; ++i) std::fill_n(u + i * q.stride, i, 0.0);
}

void mirror(const FullProblem& q, double* matrix) {
  for (int64_t i = 0; i < q.width; ++i)
    for (int64_t j = 0; j < i; ++j) matrix[i * q.stride + j] = matrix[j * q.stride + i];
}

FullProblem full_problem(const GmmShape& s, Scratch state) {
  FullProblem q = sized(s);
  for_arrays(q, [&](double*& p, int64_t elements) { p = carve<double>(state, elements); });
  return q;
}

size_t full_state_bytes(const GmmShape& s) {
  FullProblem q = sized(s);
  size_t bytes = 0;
  for_arrays(q, [&](double*&, int64_t elements) { bytes += carve_bytes<double>(elements); });
  return bytes;
}

FullTask full_task(const FullProblem& q, int64_t index) {
  FullTask t;
  double* buffer = q.buffers + index * q.buffer_size();
  const auto take = [&](int64_t n) { return std::exchange(buffer, buffer + n); };
  t.group = index % q.groups;
  t.c = index / q.groups % q.chunks;
  t.m = index / q.groups / q.chunks;
  t.first_row = t.c * q.chunk;
  t.last_row = std::min(q.batch, t.first_row + q.chunk);
  t.first_component = piece_begin(q.components, q.groups, t.group);
  t.last_component = piece_begin(q.components, q.groups, t.group + 1);
  t.tile = take(q.width * kTileRows);
  t.other = take(q.width * kTileRows);
  t.left = take(q.block() * q.stride);
  t.right = take(q.block() * q.stride);
  return t;
}

void centred_tile(const FullProblem& q, int64_t m, int64_t row, const double* mean, double* tile) {
  const double* x = q.x + (m * q.tiles + row / kTileRows) * q.width * kTileRows;
  for (int64_t j = 0; j < q.width; ++j) {
    const double centre = mean[j];
#pragma omp simd
    for (int64_t l = 0; l < kTileRows; ++l) tile[j * kTileRows + l] = x[j * kTileRows + l] - centre;
  }
}

double full_log_scale(const FullProblem& q, int64_t at) {
  double sum = std::log(std::max(q.weights[at], kWeightFloor));
  const double* u = q.factors + at * q.matrix();
  for (int64_t j = 0; j < q.width; ++j) sum -= std::log(u[j * q.stride + j]);
  return sum;
}

void full_logits(const FullProblem& q, const FullTask& t, int64_t step) {
  for (int64_t k = t.first_component; k < t.last_component; ++k) {
    const int64_t at = q.at(step, t.m, k);
    const double scale = full_log_scale(q, at);
    double* logit = q.row(q.logits, t.m, k);
    for (int64_t n = t.first_row; n < t.last_row; n += kTileRows) {
      alignas(64) double square[kTileRows];
      centred_tile(q, t.m, n, q.means + at * q.width, t.tile);
      solve_lower(q.width, q.factors + at * q.matrix(), t.tile, square);
      for (int64_t l = 0; l < kTileRows; ++l) logit[n + l] = scale - 0.5 * square[l];
    }
  }
}

void full_posteriors(const FullProblem& q, int64_t m, int64_t c) {
  const int64_t K = q.components, begin = c * q.chunk, end = std::min(q.batch, begin + q.chunk);
  double* logits = q.row(q.logits, m, 0);
  double all = 0;
  for (int64_t n = begin; n < end; ++n) {
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t k = 0; k < K; ++k) top = std::max(top, logits[k * q.padded() + n]);
    for (int64_t k = 0; k < K; ++k) {
      double& l = logits[k * q.padded() + n];
      sum += l = std::exp(l - top);
    }
    for (int64_t k = 0; k < K; ++k) logits[k * q.padded() + n] /= sum;
    all += top + std::log(sum);
  }
  q.row_sums[m * q.chunks + c] = all;
}

void full_forward(const Cpu& be, const GmmShape& s, In x, Out weights, Out means, Out covariances,
                  Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                  Scratch state) {
  const FullProblem q = full_problem(s, state);
  const int64_t M = q.modalities, K = q.components, d = q.width;
  const auto rows_of = [&](int64_t m) { return x.data() + m * q.batch * d; };
  parallel_for(be, M, [&](int64_t m) {
    load_tiles(q, m, rows_of(m));
    choose_rows(s, m, rows_of(m), q.nearest + m * q.batch, choice.data() + m * K);
    column_means(q, m, rows_of(m));
  });
  parallel_for(be, M * q.chunks, [&](int64_t i) {
    const FullTask t = full_task(q, i * q.groups);
    moments(q, t, rows_of(t.m), q.centre + t.m * d, nullptr, q.sums(t.m, 0, t.c));
  });
  parallel_for(be, M, [&](int64_t m) { start(q, m, rows_of(m), choice.data() + m * K); });
  const bool last = !posteriors.empty() || !marginals.empty() || !log_likelihood.empty();
  for (int64_t step = 0; step < q.iterations + (last ? 1 : 0); ++step) {
    parallel_for(be, q.tasks(), [&](int64_t i) { full_logits(q, full_task(q, i), step); });
    parallel_for(be, M * q.chunks,
                 [&](int64_t i) { full_posteriors(q, i / q.chunks, i % q.chunks); });
    if (step == q.iterations) break;
    parallel_for(be, q.tasks(), [&](int64_t i) {
      const FullTask t = full_task(q, i);
      for (int64_t k = t.first_component; k < t.last_component; ++k)
        moments(q, t, rows_of(t.m), q.means + q.at(step, t.m, k) * d, q.row(q.logits, t.m, k),
                q.sums(t.m, k, t.c));
    });
    parallel_for(be, M * K, [&](int64_t i) { maximisation(q, step + 1, i / K, i % K); });
  }
  parallel_for(be, M * K, [&](int64_t i) {
    write_component(q, i / K, i % K, means.data() + i * d, covariances.data() + i * d * d);
  });
  std::copy_n(q.weights + q.at(q.iterations, 0, 0), M * K, weights.data());
  if (last)
    parallel_for(be, M,
                 [&](int64_t m) { write_posteriors(q, m, posteriors, marginals, log_likelihood); });
}

}  // namespace decalign::inline DECALIGN_REAL::mixture
