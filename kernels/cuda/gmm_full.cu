// EM with full covariances: the whole fit in one launch.
#include "kernels/cuda/gmm_full.h"
#include "kernels/cuda/gmm_start.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace gmm_full;

// The last three of `real` are null where they are not asked for.
struct Outputs {
  real *weights, *means, *covariances, *posteriors, *marginals, *likelihood;
  int32_t* choice;

  __device__ Outputs of(const Sizes& s, int64_t m) const {
    const int64_t k = m * s.components;
    const auto at = [](real* p, int64_t i) { return p ? p + i : nullptr; };
    return {weights + k,
            means + k * s.width,
            covariances + k * s.matrix(),
            at(posteriors, k * s.batch),
            at(marginals, k),
            at(likelihood, m),
            choice + k};
  }
};

// The upper factor in place, by a warp, row by row: a lane has the columns that leave its number.
__device__ void cholesky(int d, double least, double* a) {
  const int lane = threadIdx.x % 32;
  for (int j = 0; j < d; ++j) {
    for (int c = j / 32 * 32 + lane; c < d; c += 32) {
      if (c < j) continue;
      double even = a[j * d + c], odd = 0;
      int i = 0;
      for (; i + 1 < j; i += 2) {
        even -= a[i * d + j] * a[i * d + c];
        odd -= a[(i + 1) * d + j] * a[(i + 1) * d + c];
      }
      if (i < j) even -= a[i * d + j] * a[i * d + c];
      a[j * d + c] = even + odd;
    }
    __syncwarp();
    const double square = a[j * d + j], pivot = sqrt(square > least ? square : least);
    __syncwarp();  // all lanes have read the pivot
    for (int c = j / 32 * 32 + lane; c < d; c += 32)
      if (c >= j) a[j * d + c] = c == j ? pivot : a[j * d + c] / pivot;
    __syncwarp();
  }
}

// Upper triangle of sum_n g_n (x_n - mean) (x_n - mean)^T inverse; g null: ones.
__device__ void second_moments(const Sizes& s, const State& q, const double* g, const double* mean,
                               double inverse, double* out, int64_t first, int64_t step) {
  const int d = s.width;
  for (int64_t e = first; e < s.matrix(); e += step) {
    const int i = int(e / d), j = int(e % d);
    if (j < i) continue;
    double sum = 0;
    for (int n = 0; n < s.batch; ++n) {
      const double *row = q.x + int64_t(n) * d, left = (row[i] - mean[i]) * (row[j] - mean[j]);
      sum += g ? g[n] * left : left;
    }
    out[e] = sum * inverse;
  }
}

__device__ void start(const Sizes& s, const State& q, const int32_t* choice) {
  const int d = s.width, K = s.components;
  each(d, [&](int64_t j) {
    double sum = 0;
    for (int n = 0; n < s.batch; ++n) sum += q.x[int64_t(n) * d + j];
    q.centre[j] = sum / double(s.batch);
  });
  __syncthreads();
  second_moments(s, q, nullptr, q.centre, 1 / double(s.batch), q.factors, threadIdx.x, kThreads);
  __syncthreads();
  if (threadIdx.x < 32) {
    double trace = 0;
    for (int j = threadIdx.x; j < d; j += 32) trace += q.factors[int64_t(j) * d + j];
    trace = warp_sum(trace);
    const double rho = s.ridge * trace / double(max(d, 1)) + s.floor;
    if (threadIdx.x == 0) q.rho[0] = rho;
    for (int j = threadIdx.x; j < d; j += 32) q.factors[int64_t(j) * d + j] += rho;
    __syncwarp();
    cholesky(d, rho, q.factors);
  }
  __syncthreads();
  each(K * s.matrix(), [&](int64_t e) {
    const int64_t at = e % s.matrix();
    if (e >= s.matrix() && at % d >= at / d) q.factors[e] = q.factors[at];
  });
  each(int64_t(K) * d, [&](int64_t e) {
    q.means[e] = q.x[int64_t(choice[e / d]) * d + e % d];
    if (e % d == 0) q.weights[e / d] = 1 / double(K);
  });
}

__device__ void expectation(const Sizes& s, const State& q, int step) {
  const int d = s.width, K = s.components, lane = threadIdx.x % 32;
  double* const mine = q.tile + int64_t(threadIdx.x / 32) * d * 32 + lane;
  double* const gamma = q.posteriors + int64_t(step) * K * s.padded();
  by_warp(K, [&](int64_t k) {
    const double* u = q.factors + (int64_t(step) * K + k) * s.matrix();
    double sum = 0;
    for (int j = lane; j < d; j += 32) sum -= log(u[int64_t(j) * d + j]);
    sum = warp_sum(sum);
    if (lane == 0) q.constants[k] = sum + log(max(q.weights[int64_t(step) * K + k], kWeightFloor));
  });
  by_warp(int64_t(K) * s.tiles, [&](int64_t unit) {
    const int64_t k = unit / s.tiles, tile = unit % s.tiles, at = int64_t(step) * K + k;
    centred(s, q.x, int(tile), q.means + at * d, mine, 32);
    const double square = solve_lower(d, q.factors + at * s.matrix(), mine, 32);
    gamma[k * s.padded() + tile * 32 + lane] = -0.5 * square;
  });
  __syncthreads();
  each(s.batch, [&](int64_t n) {
    double top = -HUGE_VAL, sum = 0;
    for (int k = 0; k < K; ++k) top = max(top, gamma[k * s.padded() + n] + q.constants[k]);
    for (int k = 0; k < K; ++k) {
      double& l = gamma[k * s.padded() + n];
      sum += l = exp(l + q.constants[k] - top);
    }
    for (int k = 0; k < K; ++k) gamma[k * s.padded() + n] /= sum;
    q.nearest[n] = top + log(sum);
  });
  __syncthreads();
  by_warp(K, [&](int64_t k) {
    double sum = 0;
    for (int n = lane; n < s.batch; n += 32) sum += gamma[k * s.padded() + n];
    sum = warp_sum(sum);
    if (lane == 0) q.counts[int64_t(step) * K + k] = sum;
  });
  __syncthreads();
}

// Parameters of `step` from the posteriors of the step before.
__device__ void maximisation(const Sizes& s, const State& q, int step) {
  const int d = s.width, K = s.components;
  const int64_t now = int64_t(step) * K, before = now - K;
  each(int64_t(K) * d, [&](int64_t e) {
    const int64_t k = e / d, j = e % d;
    const double raw = q.counts[before + k], *gamma = q.posteriors + (before + k) * s.padded();
    if (j == 0) q.weights[now + k] = max(raw, kCountFloor) / double(s.batch);
    if (raw < kCountFloor) return void(q.means[now * d + e] = q.means[before * d + e]);
    double sum = 0;
    for (int n = 0; n < s.batch; ++n) sum += gamma[n] * q.x[int64_t(n) * d + j];
    q.means[now * d + e] = sum / raw;
  });
  __syncthreads();
  for (int k = 0; k < K; ++k) {
    double* const factor = q.factors + (now + k) * s.matrix();
    const double raw = q.counts[before + k];
    if (raw < kCountFloor)
      each(s.matrix(), [&](int64_t e) {
        if (e % d >= e / d) factor[e] = factor[e - K * s.matrix()];
      });
    else
      second_moments(s, q, q.posteriors + (before + k) * s.padded(), q.means + (now + k) * d,
                     1 / raw, factor, threadIdx.x, kThreads);
  }
  __syncthreads();
  by_warp(K, [&](int64_t k) {
    if (q.counts[before + k] < kCountFloor) return;
    double* const factor = q.factors + (now + k) * s.matrix();
    for (int j = threadIdx.x % 32; j < d; j += 32) factor[int64_t(j) * d + j] += q.rho[0];
    __syncwarp();
    cholesky(d, q.rho[0], factor);
  });
  __syncthreads();
}

__device__ void write(const Sizes& s, const State& q, const Outputs& out) {
  const int d = s.width, K = s.components, lane = threadIdx.x % 32;
  const int64_t last = int64_t(s.iterations) * K;
  each(K, [&](int64_t k) { out.weights[k] = real(q.weights[last + k]); });
  each(int64_t(K) * d, [&](int64_t e) { out.means[e] = real(q.means[last * d + e]); });
  each(K * s.matrix(), [&](int64_t e) {
    const int64_t k = e / s.matrix(), i = e % s.matrix() / d, j = e % d;
    const double* u = q.factors + (last + k) * s.matrix();
    double sum = 0;
    for (int64_t p = 0; p <= min(i, j); ++p) sum += u[p * d + i] * u[p * d + j];
    out.covariances[e] = real(sum);
  });
  if (out.posteriors)
    each(int64_t(s.batch) * K, [&](int64_t e) {
      out.posteriors[e] = real(q.posteriors[(last + e % K) * s.padded() + e / K]);
    });
  if (out.marginals)
    each(K, [&](int64_t k) {
      double total = 0;
      for (int i = 0; i < K; ++i) total += q.counts[last + i] / double(s.batch);
      out.marginals[k] = real(q.counts[last + k] / double(s.batch) / max(total, kMassFloor));
    });
  if (out.likelihood && threadIdx.x < 32) {
    double sum = 0;
    for (int n = lane; n < s.batch; n += 32) sum += q.nearest[n];
    sum = warp_sum(sum);
    constexpr double kLogTwoPi = 1.8378770664093454836;
    if (lane == 0) *out.likelihood = real(sum / double(s.batch) - 0.5 * d * kLogTwoPi);
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    full_fit_kernel(const __grid_constant__ Sizes s, gmm_steps::Start begin, const real* x,
                    const __grid_constant__ Outputs all, double* state) {
  const int64_t m = blockIdx.x, size = int64_t(s.batch) * s.width;
  State q;
  q.carve(s, state + m * s.share);
  const Outputs out = all.of(s, m);
  each(size, [&](int64_t i) { q.x[i] = double(x[m * size + i]); });
  __syncthreads();
  gmm_steps::choose({s.batch, s.components, s.width, s.width, q.x, q.nearest}, begin, uint32_t(m),
                    out.choice);
  __syncthreads();
  start(s, q, out.choice);
  __syncthreads();
  for (int step = 0; step <= s.iterations; ++step) {
    if (step > 0) maximisation(s, q, step);
    expectation(s, q, step);
  }
  write(s, q, out);
}

}  // namespace

void gmm_full_forward(const Cuda& be, const GmmShape& shape, In x, Out weights, Out means,
                      Out covariances, Out posteriors, Out marginals, Out log_likelihood,
                      std::span<int32_t> choice, Scratch state) {
  const Sizes s = sizes(shape);
  const double d = double(s.width), steps = s.iterations + 1;
  note_flops(kDouble * double(shape.modalities) * s.components * d * d * steps *
             (2.0 * s.batch + d / 3));
  launch(be, full_fit_kernel, unsigned(shape.modalities), kThreads, 0, s,
         gmm_steps::Start{shape.options.init, shape.options.seed, shape.options.random}, x.data(),
         Outputs{weights.data(), means.data(), covariances.data(), pointer(posteriors),
                 pointer(marginals), pointer(log_likelihood), choice.data()},
         reinterpret_cast<double*>(state.data()));
}

}  // namespace decalign::inline DECALIGN_REAL
