// EM with full covariances: the way back in one launch. The formulas stand in
// kernels/cpu/gmm_full_backward.cpp.
#include "kernels/cuda/gmm_full.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace gmm_full;

// The outputs' gradients, of one modality; null where there is none.
struct Given {
  const real *weights, *means, *covariances, *posteriors, *marginals, *likelihood;

  __device__ Given of(const Sizes& s, int64_t m) const {
    const int64_t k = m * s.components;
    const auto at = [](const real* p, int64_t i) { return p ? p + i : nullptr; };
    return {at(weights, k),
            at(means, k * s.width),
            at(covariances, k * s.matrix()),
            at(posteriors, k * s.batch),
            at(marginals, k),
            at(likelihood, m)};
  }
};

__device__ double given(const real* g, int64_t i) { return g ? double(g[i]) : 0; }

// What the outputs ask of the last posteriors, to dlogits.
__device__ void outputs_backward(const Sizes& s, const State& q, const Given& g) {
  const int64_t K = s.components, last = int64_t(s.iterations) * K;
  double mass = 0, along = 0;
  for (int64_t k = 0; k < K; ++k) {
    const double p = q.counts[last + k] / double(s.batch);
    mass += p;
    along += p * given(g.marginals, k);
  }
  along = mass >= kMassFloor ? along / mass : 0;
  const double each_row = 1 / (max(mass, kMassFloor) * double(s.batch));
  each(K * s.batch, [&](int64_t e) {
    const int64_t k = e % K, n = e / K;
    q.dlogits[k * s.padded() + n] =
        given(g.posteriors, e) + (given(g.marginals, k) - along) * each_row;
  });
}

// dgamma of `step` through the M-step after it, to dlogits; G e of every row to `product`.
__device__ void maximisation_rows(const Sizes& s, const State& q, int step) {
  const int d = s.width, K = s.components, lane = threadIdx.x % 32;
  double* const e = q.tile + int64_t(threadIdx.x / 32) * d * 32 + lane;
  by_warp(int64_t(K) * s.tiles, [&](int64_t unit) {
    const int64_t k = unit / s.tiles, tile = unit % s.tiles, n = tile * 32 + lane;
    const double raw = q.counts[int64_t(step) * K + k];
    double* const ge = q.product + k * d * s.padded() + n;
    double& dgamma = q.dlogits[k * s.padded() + n];
    if (raw < kCountFloor) return void(dgamma = 0);
    const double *G = q.dcovariances + k * s.matrix(), *dmean = q.dmeans + k * d;
    double ridge = 0;
    for (int j = lane; j < d; j += 32) ridge += G[int64_t(j) * d + j];
    double sum = q.dweights[k] * raw / double(s.batch) - q.traces[k] + q.rho[0] * warp_sum(ridge);
    centred(s, q.x, int(tile), q.means + (int64_t(step + 1) * K + k) * d, e, 32);
    for (int i = 0; i < d; ++i) {
      double even = 0, odd = 0;
      for (int j = 0; j + 1 < d; j += 2) {
        even += G[i * d + j] * e[j * 32];
        odd += G[i * d + j + 1] * e[(j + 1) * 32];
      }
      if (d % 2) even += G[i * d + d - 1] * e[(d - 1) * 32];
      const double product = even + odd;
      ge[i * s.padded()] = product;
      sum += e[i * 32] * (dmean[i] + product);
    }
    dgamma = sum / raw;
  });
}

// dx through the M-step after `step`, and dlogits from the gradient of the posteriors.
__device__ void rows_backward(const Sizes& s, const State& q, const Given& g, int step) {
  const int d = s.width, K = s.components;
  const double* const gamma = q.posteriors + int64_t(step) * K * s.padded();
  const bool last = step == s.iterations;
  if (!last)
    each(int64_t(s.batch) * d, [&](int64_t e) {
      const int64_t n = e / d, j = e % d;
      double sum = q.dx[e];
      for (int k = 0; k < K; ++k) {
        const double raw = q.counts[int64_t(step) * K + k];
        if (raw < kCountFloor) continue;
        sum += gamma[k * s.padded() + n] / raw *
               (q.dmeans[k * d + j] + 2 * q.product[(int64_t(k) * d + j) * s.padded() + n]);
      }
      q.dx[e] = sum;
    });
  const double direct = last ? given(g.likelihood, 0) / double(s.batch) : 0;
  each(s.batch, [&](int64_t n) {
    double sum = 0;
    for (int k = 0; k < K; ++k) sum += gamma[k * s.padded() + n] * q.dlogits[k * s.padded() + n];
    for (int k = 0; k < K; ++k) {
      double& l = q.dlogits[k * s.padded() + n];
      l = gamma[k * s.padded() + n] * (l - sum + direct);
    }
  });
  each(K, [&](int64_t k) {  // rho of the M-step
    if (last || q.counts[int64_t(step) * K + k] < kCountFloor) return;
    for (int j = 0; j < d; ++j) q.drho[k] += q.dcovariances[k * s.matrix() + int64_t(j) * d + j];
  });
}

// Sigma^-1 e of every row to `product`, Sigma^-1 to `inverses`.
__device__ void whiten(const Sizes& s, const State& q, int step) {
  const int d = s.width, K = s.components, lane = threadIdx.x % 32;
  const int columns = (d + 31) / 32, units = s.tiles + columns;
  by_warp(int64_t(K) * units, [&](int64_t unit) {
    const int64_t k = unit / units, i = unit % units, at = int64_t(step) * K + k;
    const double* const u = q.factors + at * s.matrix();
    if (i < s.tiles) {
      double* const z = q.product + k * d * s.padded() + i * 32 + lane;
      centred(s, q.x, int(i), q.means + at * d, z, s.padded());
      q.squares[k * s.padded() + i * 32 + lane] = solve_lower(d, u, z, s.padded());
      solve_upper(d, u, z, s.padded());
    } else {
      const int64_t c = (i - s.tiles) * 32 + lane, stride = int64_t(columns) * 32;
      double* const column = q.inverses + k * d * stride + c;
      for (int j = 0; j < d; ++j) column[j * stride] = j == c ? 1 : 0;
      solve_lower(d, u, column, stride);
      solve_upper(d, u, column, stride);
    }
  });
  by_warp(K, [&](int64_t k) {
    double sum = 0;
    for (int n = lane; n < s.batch; n += 32) sum += q.dlogits[k * s.padded() + n];
    sum = warp_sum(sum);
    if (lane == 0) q.constants[k] = sum;
  });
}

// Gradients of the parameters of `step`, and dx through the E-step.
__device__ void collect(const Sizes& s, const State& q, const Given& g, int step) {
  const int d = s.width, K = s.components, lane = threadIdx.x % 32;
  const int64_t stride = int64_t(d + 31) / 32 * 32;
  const bool last = step == s.iterations;
  const auto kept = [&](int64_t k) {
    return !last && q.counts[int64_t(step) * K + k] < kCountFloor;
  };
  each(K * s.matrix(), [&](int64_t e) {
    const int64_t k = e / s.matrix(), i = e % s.matrix() / d, j = e % d;
    const double *a = q.product + (k * d + i) * s.padded(), *l = q.dlogits + k * s.padded();
    const double* b = q.product + (k * d + j) * s.padded();
    double sum = 0;
    for (int n = 0; n < s.batch; ++n) sum += l[n] * (a[n] * b[n]);
    sum = 0.5 * (sum - q.constants[k] * q.inverses[(k * d + min(i, j)) * stride + max(i, j)]);
    if (kept(k)) sum += q.dcovariances[e];
    if (last && g.covariances) {
      const int64_t base = k * s.matrix();
      sum += 0.5 * (double(g.covariances[e]) + double(g.covariances[base + j * d + i]));
    }
    q.dcovariances[e] = sum;
  });
  each(int64_t(K) * d, [&](int64_t e) {
    const int64_t k = e / d;
    double sum = kept(k) ? q.dmeans[e] : last ? given(g.means, e) : 0;
    for (int n = 0; n < s.batch; ++n)
      sum += q.dlogits[k * s.padded() + n] * q.product[e * s.padded() + n];
    q.dmeans[e] = sum;
  });
  each(int64_t(s.batch) * d, [&](int64_t e) {
    const int64_t n = e / d, j = e % d;
    double sum = last ? 0 : q.dx[e];
    for (int64_t k = 0; k < K; ++k)
      sum -= q.dlogits[k * s.padded() + n] * q.product[(k * d + j) * s.padded() + n];
    q.dx[e] = sum;
  });
  by_warp(K, [&](int64_t k) {
    const double weight = q.weights[int64_t(step) * K + k], total = q.constants[k];
    double sum = 0;
    for (int n = lane; n < s.batch; n += 32)
      sum += q.dlogits[k * s.padded() + n] * q.squares[k * s.padded() + n];
    double trace = 0.5 * (warp_sum(sum) - double(d) * total), more = 0;
    if (last && g.covariances) {  // tr(D Sigma) = sum over the rows of U of u D u^T
      const double* const u = q.factors + (int64_t(step) * K + k) * s.matrix();
      const real* const D = g.covariances + k * s.matrix();
      for (int64_t e = lane; e < s.matrix(); e += 32) {
        const int64_t i = e / d, j = e % d;
        double sigma = 0;
        for (int64_t p = 0; p <= min(i, j); ++p) sigma += u[p * d + i] * u[p * d + j];
        more += double(D[e]) * sigma;
      }
      trace += warp_sum(more);
    }
    if (lane > 0) return;
    q.traces[k] = trace + (kept(k) ? q.traces[k] : 0);
    q.dweights[k] =
        (weight >= kWeightFloor ? total / weight : 0) + (last ? given(g.weights, k) : 0);
  });
}

// What reaches the batch's covariance, 2 / B D (x - mean), and the rows at which the means start.
__device__ void write(const Sizes& s, const State& q, const int32_t* choice, bool start, real* dx) {
  const int d = s.width, K = s.components;
  double* const D = q.dcovariances;
  each(s.matrix(), [&](int64_t e) {
    double sum = 0;
    for (int k = 0; k < K && start; ++k) sum += D[k * s.matrix() + e];
    q.inverses[e] = sum;
  });
  __syncthreads();
  if (threadIdx.x == 0) {
    double drho = 0;
    for (int k = 0; k < K; ++k) drho += q.drho[k];
    for (int j = 0; j < d; ++j) drho += q.inverses[int64_t(j) * d + j];
    for (int j = 0; j < d; ++j) q.inverses[int64_t(j) * d + j] += drho * s.ridge / double(d);
  }
  __syncthreads();
  each(int64_t(s.batch) * d, [&](int64_t e) {
    const int64_t n = e / d, j = e % d;
    double sum = 0;
    for (int i = 0; i < d; ++i) sum += q.inverses[i * d + j] * (q.x[n * d + i] - q.centre[i]);
    sum = q.dx[e] + 2 / double(s.batch) * sum;
    for (int k = 0; k < K && start; ++k)
      if (choice[k] == n) sum += q.dmeans[k * d + j];
    dx[e] = real(double(dx[e]) + sum);
  });
}

__global__ void __launch_bounds__(kThreads, 1)
    full_backward_kernel(const __grid_constant__ Sizes s, const int32_t* choice,
                         const __grid_constant__ Given all, real* dx, double* state) {
  const int64_t m = blockIdx.x;
  SHARED(State, shared, [1]);  // two dozen pointers would take the registers of the sums
  if (threadIdx.x == 0) shared[0].carve(s, state + m * s.share);
  __syncthreads();
  const State& q = shared[0];
  const Given g = all.of(s, m);
  each(s.components, [&](int64_t k) { q.drho[k] = 0; });
  outputs_backward(s, q, g);
  __syncthreads();
  for (int step = s.iterations; step >= 0; --step) {
    if (step < s.iterations) {
      maximisation_rows(s, q, step);
      __syncthreads();
    }
    rows_backward(s, q, g, step);
    __syncthreads();
    if (s.last_step && step < s.iterations) break;
    whiten(s, q, step);
    __syncthreads();
    collect(s, q, g, step);
    __syncthreads();
  }
  write(s, q, choice + m * s.components, !s.last_step || s.iterations == 0,
        dx + m * s.batch * s.width);
}

}  // namespace

void gmm_full_backward(const Cuda& be, const GmmShape& shape, std::span<const int32_t> choice,
                       In dweights, In dmeans, In dcovariances, In dposteriors, In dmarginals,
                       In dlog_likelihood, InOut dx, Scratch state) {
  const Sizes s = sizes(shape);
  const double d = double(s.width), steps = s.iterations + 1;
  note_flops(kDouble * double(shape.modalities) * s.components * d * d * steps *
             (6.0 * s.batch + 2 * d));
  launch(be, full_backward_kernel, unsigned(shape.modalities), kThreads, 0, s, choice.data(),
         Given{pointer(dweights), pointer(dmeans), pointer(dcovariances), pointer(dposteriors),
               pointer(dmarginals), pointer(dlog_likelihood)},
         dx.data(), reinterpret_cast<double*>(state.data()));
}

}  // namespace decalign::inline DECALIGN_REAL
