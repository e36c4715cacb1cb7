#include "kernels/carve.h"
#include "kernels/check/gmm.h"
#include "kernels/cuda/gmm_full.h"
#include "kernels/cuda/gmm_products.h"
#include "kernels/cuda/gmm_start.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace gmm_steps;

// The last three of `real` are null where they are not asked for.
struct Outputs {
  real *weights, *means, *variances, *posteriors, *marginals, *likelihood;
  int32_t* choice;

  // Those of modality m.
  __device__ Outputs of(const Sizes& s, int64_t m) const {
    const int64_t k = m * s.components;
    const auto at = [](real* p, int64_t i) { return p ? p + i : nullptr; };
    return {weights + k,
            means + k * s.width,
            variances + k * s.width,
            at(posteriors, k * s.batch),
            at(marginals, k),
            at(likelihood, m),
            choice + k};
  }
};

// The work arrays.
struct Fit {
  double* x;        // [B, row_stride]
  double* gamma;    // [B, gamma_stride]
  double* nearest;  // [2, B]: squared distances to the nearest start row, of k-means++; in the end
                    // the rows' log-likelihoods
  double* mean;     // [K, stride]
  double* precision;  // [K, stride]
  double* part;       // [K, part_stride]; its sum is sum_j log v_j - 2 log pi
  double* count;      // [K]

  __device__ Fit(const Sizes& s, Areas a)
      : x(take(a.rows, int64_t(s.batch) * s.row_stride)),
        gamma(take(a.rows, int64_t(s.batch) * s.gamma_stride)),
        nearest(a.rows),
        mean(take(a.parameters, int64_t(s.components) * s.stride)),
        precision(take(a.parameters, int64_t(s.components) * s.stride)),
        part(take(a.parameters, int64_t(s.components) * s.part_stride)),
        count(a.parameters) {}
};

// Parameters of `step` from the posteriors of the step before; kStart: from equal ones, the means
// from the chosen rows.
template <bool kStart>
__device__ void maximisation(const Sizes& s, const Fit& f, const History& h, const Outputs& out,
                             int step) {
  const int lane = threadIdx.x % 32, first = lane / kColumns, K = s.components, d = s.width;
  for (int unit = threadIdx.x / 32; unit < K * s.chunks; unit += kWarps) {
    const int k = unit / s.chunks, chunk = unit % s.chunks, j = chunk * kColumns + lane % kColumns;
    const bool inside = j < d;
    const double* const x = f.x + (inside ? j : 0);
    const auto each_row = [&](auto&& add) {
#pragma unroll 4
      for (int n = first; n < s.batch; n += kSplit)
        add(kStart ? 1.0 : f.gamma[n * s.gamma_stride + k], inside ? x[n * s.row_stride] : 0.0);
    };
    double raw = 0, mean = 0, v = 0;
    each_row([&](double g, double e) { raw += g, mean += g * e; });
    raw = column_sum(raw);
    const double n_k = max(raw, kCountFloor), inverse = 1 / n_k;
    mean = column_sum(mean) * inverse;
    each_row([&](double g, double e) { v += g * ((e - mean) * (e - mean)); });
    v = column_sum(v) * inverse;
    // E[x^2] - mu^2 = variance about mu, plus what the floor of N_k leaves of mu^2.
    if (raw < kCountFloor) v += (1 - raw * inverse) * (mean * mean);
    if (v < s.floor) v = s.floor;
    const double weight = kStart ? 1 / double(K) : n_k / double(s.batch);
    // One logarithm a lane: of its v or, past the first lane of the column, of the weight.
    const double mine = first > 0 ? max(weight, kWeightFloor) : v;
    double logarithm = inside || first > 0 ? log(mine) : 0.0;
    const double log_weight = __shfl_sync(0xffffffffu, logarithm, kColumns);
    logarithm = chunk_sum(logarithm);
    const int64_t at = (int64_t(step) * K + k) * d + j;
    if (inside && first == 0) {
      if (kStart) {
        if (k == 0) h.centre[j] = mean;
        mean = x[out.choice[k] * s.row_stride];
      }
      f.mean[k * s.stride + j] = h.means[at] = mean;
      f.precision[k * s.stride + j] = 1 / v;
      h.variances[at] = v;
      if (step == s.iterations) {
        out.means[int64_t(k) * d + j] = real(mean);
        out.variances[int64_t(k) * d + j] = real(v);
      }
    }
    if (lane > 0) continue;
    if (chunk == 0) {
      logarithm -= 2 * log_weight;
      h.weights[int64_t(step) * K + k] = weight;
      if (!kStart) h.counts[int64_t(step - 1) * K + k] = raw;
      if (step == s.iterations) out.weights[k] = real(weight);
    }
    f.part[k * s.part_stride + chunk] = logarithm;
  }
}

// gamma of `step` from its parameters.
__device__ void expectation(const Sizes& s, const Fit& f, const History& h, real* posteriors,
                            int step) {
  const int lane = threadIdx.x % 32, share = lane % s.lanes, K = s.components, d = s.width;
  for_rows(s, [&](int n) {
    const bool both = n + 1 < s.batch;
    const double* const x0 = f.x + n * s.row_stride;
    const double* const x1 = x0 + (both ? s.row_stride : 0);
    double* const row = f.gamma + n * s.gamma_stride;
    for (int first = 0; first < K; first += 32 / s.lanes) {
      const int k = first + lane / s.lanes, kk = min(k, K - 1);
      const double *mu = f.mean + kk * s.stride, *w = f.precision + kk * s.stride;
      double square0 = 0;
      for (int c = share; c < s.chunks; c += s.lanes) square0 += f.part[kk * s.part_stride + c];
      double square1 = square0;
#pragma unroll 4
      for (int j = share; j < d; j += s.lanes) {
        const double e0 = x0[j] - mu[j], e1 = x1[j] - mu[j];
        square0 += e0 * e0 * w[j];
        square1 += e1 * e1 * w[j];
      }
      square0 = component_sum(s, square0);
      square1 = component_sum(s, square1);
      if (k < K && share == 0) {
        row[k] = -0.5 * square0;
        if (both) row[s.gamma_stride + k] = -0.5 * square1;
      }
    }
    __syncwarp();
    for (int r = 0; r < (both ? kRows : 1); ++r) {
      double* const logit = row + r * s.gamma_stride;
      double top = -HUGE_VAL, sum = 0;
      for (int k = lane; k < K; k += 32) top = max(top, logit[k]);
      top = warp_max(top);
      for (int k = lane; k < K; k += 32) sum += logit[k] = exp(logit[k] - top);
      sum = warp_sum(sum);
      if (step == s.iterations && lane == 0) f.nearest[n + r] = top + log(sum);
      for (int k = lane; k < K; k += 32) {
        const double gamma = logit[k] / sum;
        logit[k] = gamma;
        // scattered: [B, K] with K = 7: a row is 56 bytes
        h.posteriors[(int64_t(step) * s.batch + n + r) * K + k] = gamma;
        // scattered: [B, K] with K = 7: a row is 56 bytes
        if (step == s.iterations && posteriors) posteriors[int64_t(n + r) * K + k] = real(gamma);
      }
    }
  });
}

__device__ void marginals(const Sizes& s, const Fit& f, const History& h, const Outputs& out) {
  const int lane = threadIdx.x % 32, K = s.components;
  for (int k = threadIdx.x / 32; k < K; k += kWarps) {
    double sum = 0;
    for (int n = lane; n < s.batch; n += 32) sum += f.gamma[n * s.gamma_stride + k];
    sum = warp_sum(sum);
    if (lane == 0) f.count[k] = h.counts[int64_t(s.iterations) * K + k] = sum;
  }
  if (threadIdx.x / 32 == kWarps - 1 && out.likelihood) {
    double sum = 0;
    for (int n = lane; n < s.batch; n += 32) sum += f.nearest[n];
    sum = warp_sum(sum);
    constexpr double kLogTwoPi = 1.8378770664093454836;
    if (lane == 0) *out.likelihood = real(sum / double(s.batch) - 0.5 * s.width * kLogTwoPi);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < K && out.marginals; k += kThreads) {
    double total = 0;
    for (int i = 0; i < K; ++i) total += f.count[i] / double(s.batch);
    // scattered: K = 7 numbers, once
    out.marginals[k] = real(f.count[k] / double(s.batch) / max(total, kMassFloor));
  }
}

template <Place kPlace>
__global__ void __launch_bounds__(kThreads, 1)
    fit_kernel(const __grid_constant__ Sizes s, Start start, const real* x,
               const __grid_constant__ Outputs all, double* state) {
  DYNAMIC_SHARED(double, shared);
  const int64_t m = blockIdx.x;
  const History h(s, state + m * s.share);
  const Fit f(s, areas<kPlace>(forward_work(s), shared, h.work));
  const Outputs out = all.of(s, m);
  load_rows(s, x + m * s.batch * s.width, f.x);
  __syncthreads();
  choose({s.batch, s.components, s.width, s.row_stride, f.x, f.nearest}, start, uint32_t(m),
         out.choice);
  __syncthreads();
  maximisation<true>(s, f, h, out, 0);
  for (int step = 0; step <= s.iterations; ++step) {
    if (step > 0) maximisation<false>(s, f, h, out, step);
    __syncthreads();
    expectation(s, f, h, out.posteriors, step);
    __syncthreads();
  }
  marginals(s, f, h, out);
}

}  // namespace

size_t gmm_state_bytes(const Cuda&, const GmmShape& shape) {
  if (shape.options.covariance == GmmCovariance::full)
    return size_t(shape.modalities) * size_t(gmm_full::sizes(shape).share) * sizeof(double);
  if (shape.options.arithmetic == GmmArithmetic::products) return gmm_products_state_bytes(shape);
  return size_t(shape.modalities) * size_t(sizes(shape).share) * sizeof(double);
}

void gmm_forward(const Cuda& be, const GmmShape& shape, In x, Out weights, Out means,
                 Out covariances, Out posteriors, Out marginals, Out log_likelihood,
                 std::span<int32_t> choice, Scratch state) {
  check_gmm_forward(shape, x, weights, means, covariances, posteriors, marginals, log_likelihood,
                    choice, state, gmm_state_bytes(be, shape));
  if (shape.options.covariance == GmmCovariance::full)
    return gmm_full_forward(be, shape, x, weights, means, covariances, posteriors, marginals,
                            log_likelihood, choice, state);
  if (shape.options.arithmetic == GmmArithmetic::products)
    return gmm_products_forward(be, shape, x, weights, means, covariances, posteriors, marginals,
                                log_likelihood, choice, state);
  const Sizes s = sizes(shape);
  const Work work = forward_work(s);
  const auto kernel = place(work) == Place::all          ? fit_kernel<Place::all>
                      : place(work) == Place::parameters ? fit_kernel<Place::parameters>
                                                         : fit_kernel<Place::state>;
  // A term of an M-step takes seven, one of an E-step four.
  note_flops(kDouble * 11 * double(shape.options.iterations + 1) * gmm_terms(shape));
  launch(be, kernel, unsigned(shape.modalities), kThreads, shared_bytes(work), s,
         Start{shape.options.init, shape.options.seed, shape.options.random}, x.data(),
         Outputs{weights.data(), means.data(), covariances.data(), pointer(posteriors),
                 pointer(marginals), pointer(log_likelihood), choice.data()},
         reinterpret_cast<double*>(state.data()));
}

}  // namespace decalign::inline DECALIGN_REAL
