// EM with full covariances: the way back. Of every step only the parameters were kept; whitened
// rows and posteriors are computed again.
//
// With l = d(logits), e = x - mu, z = Sigma^-1 e an E-step gives
//   dmu = sum l z,  dSigma = (sum l z z^T - (sum l) Sigma^-1) / 2,  dx -= l z,
// and an M-step, with G = dSigma,
//   dgamma = (e^T G e + dmu . e - tr(G (Sigma - rho I))) / N_k + dpi / B,
//   dx += gamma / N_k (dmu + 2 G e),  drho += tr G.
#include "kernels/cpu/gmm_full.h"

namespace decalign::inline DECALIGN_REAL::mixture {
namespace {

struct Cotangents {
  In weights, means, covariances, posteriors, marginals, log_likelihood;
};

// What the outputs ask of the posteriors, also through marginals = p / max(sum p, floor), p = mean
// of the posteriors.
void outputs_backward(const FullProblem& q, const Cotangents& given_, int64_t m) {
  const int64_t n = q.batch, K = q.components;
  double mass = 0, along = 0;
  for (int64_t k = 0; k < K; ++k) {
    const double p = row_sum(q.row(q.logits, m, k), n) / double(n);
    mass += p;
    along += p * given(given_.marginals, m * K + k);
  }
  along = mass >= kMassFloor ? along / mass : 0;
  for (int64_t k = 0; k < K; ++k) {
    const double dp =
        (given(given_.marginals, m * K + k) - along) / std::max(mass, kMassFloor) / double(n);
    double* dgamma = q.row(q.dgamma, m, k);
    for (int64_t i = 0; i < n; ++i) dgamma[i] = given(given_.posteriors, (m * n + i) * K + k) + dp;
  }
}

// dgamma becomes the logits' gradient; `direct` is that of every row's log-sum-exp.
void softmax_backward(const FullProblem& q, int64_t m, int64_t c, double direct) {
  const int64_t K = q.components, begin = c * q.chunk, end = std::min(q.batch, begin + q.chunk);
  const double* gamma = q.row(q.logits, m, 0);
  double* dgamma = q.row(q.dgamma, m, 0);
  for (int64_t n = begin; n < end; ++n) {
    double sum = 0;
    for (int64_t k = 0; k < K; ++k) sum += gamma[k * q.padded() + n] * dgamma[k * q.padded() + n];
    for (int64_t k = 0; k < K; ++k) {
      double& d = dgamma[k * q.padded() + n];
      d = gamma[k * q.padded() + n] * (d - sum + direct);
    }
  }
}

// Rows of `left` = the tile's first samples, of `right` = those times `scale`.
void transpose(const FullProblem& q, const double* tile, int64_t rows, const double* scale,
               double* left, double* right) {
  const int64_t ld = q.stride;
  for (int64_t j = 0; j < q.width; ++j)
    for (int64_t l = 0; l < rows; ++l) {
      left[l * ld + j] = tile[j * kTileRows + l];
      right[l * ld + j] = scale[l] * tile[j * kTileRows + l];
    }
  for (int64_t l = 0; l < rows; ++l)
    for (int64_t j = q.width; j < ld; ++j) left[l * ld + j] = right[l * ld + j] = 0;
}

// A component's sums over the task's rows: sum l, sum l |U^-T e|^2, sum l z, sum l z z^T.
void expectation_rows(const FullProblem& q, const FullTask& t, int64_t step, int64_t k) {
  const int64_t d = q.width, at = q.at(step, t.m, k);
  const double *dlogit = q.row(q.dgamma, t.m, k), *u = q.factors + at * q.matrix();
  double* sums = q.sums(t.m, k, t.c);
  std::fill_n(sums, q.partial_size(), 0.0);
  for (int64_t n0 = t.first_row; n0 < t.last_row; n0 += q.block()) {
    const int64_t end = std::min(n0 + q.block(), t.last_row);
    for (int64_t n = n0; n < end; n += kTileRows) {
      const int64_t rows = std::min(kTileRows, end - n);
      alignas(64) double square[kTileRows], l[kTileRows] = {};
      std::copy_n(dlogit + n, rows, l);
      centred_tile(q, t.m, n, q.means + at * d, t.tile);
      solve_lower(d, u, t.tile, square);
      solve_upper(d, u, t.tile);
      for (int64_t i = 0; i < rows; ++i) sums[0] += l[i], sums[1] += l[i] * square[i];
      double* dx = q.dx_tile(t.group, t.m, n);
      for (int64_t j = 0; j < d; ++j) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < kTileRows; ++i) {
          const double lz = l[i] * t.tile[j * kTileRows + i];
          sum += lz;
          dx[j * kTileRows + i] -= lz;
        }
        sums[2 + j] += sum;
      }
      transpose(q, t.tile, rows, l, t.left + (n - n0) * q.stride, t.right + (n - n0) * q.stride);
    }
    add_symmetric(end - n0, d, t.right, t.left, q.sum_matrix(sums));
  }
}

// dgamma of `step` and dx through the M-step that follows it.
void maximisation_rows(const FullProblem& q, const FullTask& t, int64_t step, int64_t k) {
  const int64_t d = q.width, i = t.m * q.components + k;
  const double *mean = q.means + q.at(step + 1, t.m, k) * d, *dmean = q.dmeans + i * d;
  const double *G = q.dcovariances + i * q.matrix(), *gamma = q.row(q.logits, t.m, k);
  const double raw = q.counts[q.at(step, t.m, k)], inverse = 1 / raw;
  double* dgamma = q.row(q.dgamma, t.m, k);
  if (raw < kCountFloor) return void(std::fill(dgamma + t.first_row, dgamma + t.last_row, 0.0));
  double constant = q.dweights[i] * raw / double(q.batch) - q.traces[i];
  for (int64_t j = 0; j < d; ++j) constant += q.rho[t.m] * G[j * q.stride + j];
  for (int64_t n = t.first_row; n < t.last_row; n += kTileRows) {
    const int64_t rows = std::min(kTileRows, t.last_row - n);
    alignas(64) double share[kTileRows] = {}, sum[kTileRows] = {};
    for (int64_t l = 0; l < rows; ++l) share[l] = gamma[n + l] * inverse;
    centred_tile(q, t.m, n, mean, t.tile);
    multiply_tile(d, G, t.tile, t.other);
    double* dx = q.dx_tile(t.group, t.m, n);
    for (int64_t j = 0; j < d; ++j) {
      const double *e = t.tile + j * kTileRows, *ge = t.other + j * kTileRows, dmu = dmean[j];
      double* out = dx + j * kTileRows;
#pragma omp simd
      for (int64_t l = 0; l < kTileRows; ++l) {
        sum[l] += e[l] * (dmu + ge[l]);
        out[l] += share[l] * (dmu + 2 * ge[l]);
      }
    }
    for (int64_t l = 0; l < rows; ++l) dgamma[n + l] = inverse * (sum[l] + constant);
  }
}

// Gradients of the parameters of `step` from the sums over the rows; a component that the next
// M-step kept passes on what it has.
void collect(const FullProblem& q, int64_t step, int64_t m, int64_t k) {
  const int64_t d = q.width, ld = q.stride, at = q.at(step, m, k), i = m * q.components + k;
  double *sums = q.sums(m, k, 0), *square = q.sum_matrix(sums);
  for (int64_t c = 1; c < q.chunks; ++c)
    for (int64_t e = 0; e < q.partial_size(); ++e) sums[e] += q.sums(m, k, c)[e];
  double *inverse = q.inverses + 2 * i * q.matrix(), *G = q.dcovariances + i * q.matrix();
  invert_symmetric(d, q.factors + at * q.matrix(), inverse, inverse + q.matrix());
  const double total = sums[0], trace = 0.5 * (sums[1] - double(d) * total);
  const bool last = step == q.iterations, kept = !last && q.counts[at] < kCountFloor;
  if (!last && !kept)
    for (int64_t j = 0; j < d; ++j) q.drho[i] += G[j * ld + j];
  for (int64_t r = 0; r < d; ++r)
#pragma omp simd
    for (int64_t j = r; j < d; ++j) {
      const double g = 0.5 * (square[r * ld + j] - total * inverse[r * ld + j]);
      G[r * ld + j] = (kept ? G[r * ld + j] : 0) + g;
    }
  mirror(q, G);
  q.traces[i] = (kept ? q.traces[i] : 0) + trace;
  for (int64_t j = 0; j < d; ++j)
    q.dmeans[i * d + j] = (kept ? q.dmeans[i * d + j] : 0) + sums[2 + j];
  q.dweights[i] = q.weights[at] >= kWeightFloor ? total / q.weights[at] : 0;
}

// Adds the gradients that the last step's parameters were given.
void add_given(const FullProblem& q, const Cotangents& c, int64_t i) {
  const int64_t d = q.width, ld = q.stride, at = q.at(q.iterations, 0, 0) + i;
  q.dweights[i] += given(c.weights, i);
  for (int64_t j = 0; j < d; ++j) q.dmeans[i * d + j] += given(c.means, i * d + j);
  if (c.covariances.empty()) return;
  double *G = q.dcovariances + i * q.matrix(),
         *sigma = q.sum_matrix(q.partial) + i * q.chunks * q.partial_size();
  const double* u = q.factors + at * q.matrix();
  std::fill_n(sigma, q.matrix(), 0.0);
  add_symmetric(d, d, u, u, sigma);
  mirror(q, sigma);
  const real* D = c.covariances.data() + i * d * d;
  for (int64_t r = 0; r < d; ++r)
    for (int64_t j = 0; j < d; ++j) {
      const double g = 0.5 * (double(D[r * d + j]) + double(D[j * d + r]));
      G[r * ld + j] += g;
      q.traces[i] += g * sigma[r * ld + j];
    }
}

// What reaches the batch's covariance: rho, and where `start` is set the start, whose means are
// rows. Left in the gradient of component 0.
void start_backward(const FullProblem& q, int64_t m, bool start, const int32_t* choice) {
  const int64_t d = q.width, ld = q.stride, K = q.components;
  double *D = q.dcovariances + m * K * q.matrix(), drho = 0;
  for (int64_t k = 0; k < K; ++k) {
    const double* G = D + k * q.matrix();
    drho += q.drho[m * K + k];
    if (start)
      for (int64_t j = 0; j < d; ++j) {
        drho += G[j * ld + j];
        double* tile = q.dx_tile(0, m, choice[k]);
        tile[j * kTileRows + choice[k] % kTileRows] += q.dmeans[(m * K + k) * d + j];
      }
  }
  if (!start) std::fill_n(D, q.matrix(), 0.0);
  for (int64_t k = 1; k < K && start; ++k)
    for (int64_t e = 0; e < q.matrix(); ++e) D[e] += D[k * q.matrix() + e];
  for (int64_t j = 0; j < d; ++j) D[j * ld + j] += drho * q.ridge / double(d);
}

// dx of the rows of a chunk: all groups, and 2 / B D (x - mean).
void write_dx(const FullProblem& q, const FullTask& t, real* dx) {
  const int64_t d = q.width;
  const double* D = q.dcovariances + t.m * q.components * q.matrix();
  for (int64_t n = t.first_row; n < t.last_row; n += kTileRows) {
    centred_tile(q, t.m, n, q.centre + t.m * d, t.tile);
    multiply_tile(d, D, t.tile, t.other);
    for (int64_t j = 0; j < d; ++j)
      for (int64_t l = 0; l < std::min(kTileRows, t.last_row - n); ++l) {
        double sum = 2 / double(q.batch) * t.other[j * kTileRows + l];
        for (int64_t g = 0; g < q.groups; ++g) sum += q.dx_tile(g, t.m, n)[j * kTileRows + l];
        real& out = dx[(n + l) * d + j];
        out = real(double(out) + sum);
      }
  }
}

}  // namespace

void full_backward(const Cpu& be, const GmmShape& s, In x, std::span<const int32_t> choice,
                   In dweights, In dmeans, In dcovariances, In dposteriors, In dmarginals,
                   In dlog_likelihood, InOut dx, Scratch state) {
  const FullProblem q = full_problem(s, state);
  const int64_t M = q.modalities, K = q.components, d = q.width, last = q.iterations;
  if (x.empty()) return;
  const Cotangents cotangents{dweights,    dmeans,     dcovariances,
                              dposteriors, dmarginals, dlog_likelihood};
  const auto chunks = [&](auto&& f) {
    parallel_for(be, M * q.chunks, [&](int64_t i) { f(i / q.chunks, i % q.chunks); });
  };
  const auto components = [&](auto&& f) {
    parallel_for(be, q.tasks(), [&](int64_t i) {
      const FullTask t = full_task(q, i);
      for (int64_t k = t.first_component; k < t.last_component; ++k) f(t, k);
    });
  };
  parallel_for(be, q.groups * M, [&](int64_t i) {
    const int64_t share = q.tiles * d * kTileRows;
    std::fill_n(q.dx + i * share, share, 0.0);
  });
  std::fill_n(q.drho, M * K, 0.0);

  for (int64_t step = last; step >= 0; --step) {
    parallel_for(be, q.tasks(), [&](int64_t i) { full_logits(q, full_task(q, i), step); });
    chunks([&](int64_t m, int64_t c) { full_posteriors(q, m, c); });
    if (step == last)
      parallel_for(be, M, [&](int64_t m) { outputs_backward(q, cotangents, m); });
    else
      components([&](const FullTask& t, int64_t k) { maximisation_rows(q, t, step, k); });
    if (step < last && s.options.gradient == GmmGradient::last_step) {
      for (int64_t i = 0; i < M * K; ++i)
        if (q.counts[q.at(step, 0, 0) + i] >= kCountFloor)
          for (int64_t j = 0; j < d; ++j)
            q.drho[i] += q.dcovariances[i * q.matrix() + j * q.stride + j];
      break;
    }
    chunks([&](int64_t m, int64_t c) {
      softmax_backward(q, m, c, step == last ? given(dlog_likelihood, m) / double(q.batch) : 0);
    });
    components([&](const FullTask& t, int64_t k) { expectation_rows(q, t, step, k); });
    parallel_for(be, M * K, [&](int64_t i) {
      collect(q, step, i / K, i % K);
      if (step == last) add_given(q, cotangents, i);
    });
  }
  const bool start = last == 0 || s.options.gradient == GmmGradient::every_step;
  parallel_for(be, M, [&](int64_t m) { start_backward(q, m, start, choice.data() + m * K); });
  chunks([&](int64_t m, int64_t c) {
    write_dx(q, full_task(q, (m * q.chunks + c) * q.groups), dx.data() + m * q.batch * d);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::mixture
