#include "kernels/check/gmm.h"
#include "kernels/cuda/gmm_full.h"
#include "kernels/cuda/gmm_products.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace gmm_steps;

// The outputs' gradients, of one modality; null where there is none.
struct Given {
  const real *weights, *means, *variances, *posteriors, *marginals, *likelihood;

  __device__ Given of(const Sizes& s, int64_t m) const {
    const int64_t k = m * s.components;
    const auto at = [](const real* p, int64_t i) { return p ? p + i : nullptr; };
    return {at(weights, k),
            at(means, k * s.width),
            at(variances, k * s.width),
            at(posteriors, k * s.batch),
            at(marginals, k),
            at(likelihood, m)};
  }
};

// scattered: [B, K] with K = 7: a row is 28 bytes
__device__ double given(const real* g, int64_t i) { return g ? double(g[i]) : 0; }

// The work arrays. "Later" parameters are those that the M-step of the current step made.
struct Gradients {
  double* x;          // [B, row_stride]
  double* dx;         // [B, row_stride]; each element has the same thread in every step
  double* dlogit;     // [B, gamma_stride]
  double* mean;       // [K, stride], of the current step
  double* later;      // [K, stride], the later means
  double* precision;  // [K, stride], of the current step
  double* dmean;      // [K, stride], of the later parameters
  double* dvariance;  // [K, stride], likewise
  double* part;       // [K, part_stride]; its sum is what all dgamma of a component have in common
  double* inverse;    // [K]: 1 / N_k
  double* share;      // [warps, kRows, K]: gamma / N_k of a warp's rows

  __device__ Gradients(const Sizes& s, Areas a)
      : x(take(a.rows, int64_t(s.batch) * s.row_stride)),
        dx(take(a.rows, int64_t(s.batch) * s.row_stride)),
        dlogit(a.rows),
        mean(take(a.parameters, int64_t(s.components) * s.stride)),
        later(take(a.parameters, int64_t(s.components) * s.stride)),
        precision(take(a.parameters, int64_t(s.components) * s.stride)),
        dmean(take(a.parameters, int64_t(s.components) * s.stride)),
        dvariance(take(a.parameters, int64_t(s.components) * s.stride)),
        part(take(a.parameters, int64_t(s.components) * s.part_stride)),
        inverse(take(a.parameters, s.components)),
        share(a.parameters + int64_t(threadIdx.x) / 32 * kRows * s.components) {}
};

// The parameters of the last step.
__device__ void load_parameters(const Sizes& s, const Gradients& q, const History& h) {
  const int64_t begin = int64_t(s.iterations) * s.components * s.width;
  for (int k = threadIdx.x / 32; k < s.components; k += kWarps)
    for (int j = threadIdx.x % 32; j < s.width; j += 32) {
      const int64_t from = begin + k * s.width + j;
      const int to = k * s.stride + j;
      q.mean[to] = h.means[from];
      q.precision[to] = 1 / h.variances[from];
    }
}

// What marginals = p / max(sum p, floor), p = mean of the posteriors, ask of every posterior.
struct Mass {
  double inverse, along;

  __device__ Mass(const Sizes& s, const History& h, const real* dmarginals) {
    const double* const counts = h.counts + int64_t(s.iterations) * s.components;
    double mass = 0;
    along = 0;
    for (int k = threadIdx.x % 32; k < s.components; k += 32) {
      // scattered: K = 7 numbers, once
      const double p = counts[k] / double(s.batch);
      mass += p;
      along += p * given(dmarginals, k);
    }
    mass = warp_sum(mass);
    along = warp_sum(along);
    along = mass >= kMassFloor ? along / mass : 0;
    inverse = 1 / (max(mass, kMassFloor) * double(s.batch));
  }
};

// dgamma of the rows n and n + 1 through the M-step that made the later parameters, to dlogit.
__device__ void maximisation_rows(const Sizes& s, const Gradients& q, int n, bool both) {
  const int lane = threadIdx.x % 32, share = lane % s.lanes, K = s.components;
  const double* const x0 = q.x + n * s.row_stride;
  const double* const x1 = x0 + (both ? s.row_stride : 0);
  double* const row = q.dlogit + n * s.gamma_stride;
  for (int first = 0; first < K; first += 32 / s.lanes) {
    const int k = first + lane / s.lanes, kk = min(k, K - 1);
    const int at = kk * s.stride;
    const double *mu = q.later + at, *dmu = q.dmean + at, *dv = q.dvariance + at;
    double sum0 = 0;
    for (int c = share; c < s.chunks; c += s.lanes) sum0 += q.part[kk * s.part_stride + c];
    double sum1 = sum0;
#pragma unroll 2
    for (int j = share; j < s.width; j += s.lanes) {
      const double e0 = x0[j] - mu[j], e1 = x1[j] - mu[j];
      sum0 += e0 * (dmu[j] + dv[j] * e0);
      sum1 += e1 * (dmu[j] + dv[j] * e1);
    }
    sum0 = component_sum(s, sum0);
    sum1 = component_sum(s, sum1);
    if (k < K && share == 0) {
      row[k] = q.inverse[k] * sum0;
      if (both) row[s.gamma_stride + k] = q.inverse[k] * sum1;
    }
  }
  __syncwarp();
}

// dx of the rows n and n + 1 through the E-step and, but for the last step, the M-step after it.
template <bool kLast>
__device__ void add_dx(const Sizes& s, const Gradients& q, int n, bool both) {
  const int K = s.components;
  const int at = n * s.row_stride, next = both ? s.row_stride : 0;
  const double* const l0 = q.dlogit + n * s.gamma_stride;
  const double* const l1 = l0 + (both ? s.gamma_stride : 0);
  const double *g0 = q.share, *g1 = g0 + (both ? K : 0);
  for (int j = threadIdx.x % 32; j < s.width; j += 32) {
    const double x0 = q.x[at + j], x1 = q.x[at + next + j];
    double sum0 = 0, sum1 = 0;
#pragma unroll 2
    for (int k = 0; k < K; ++k) {
      const int p = k * s.stride + j;
      const double mu = q.mean[p], w = q.precision[p];
      sum0 -= l0[k] * ((x0 - mu) * w);
      sum1 -= l1[k] * ((x1 - mu) * w);
      if constexpr (!kLast) {
        const double later = q.later[p], dmu = q.dmean[p], dv = 2 * q.dvariance[p];
        sum0 += g0[k] * (dmu + dv * (x0 - later));
        sum1 += g1[k] * (dmu + dv * (x1 - later));
      }
    }
    q.dx[at + j] = kLast ? sum0 : q.dx[at + j] + sum0;
    if (both) q.dx[at + next + j] = kLast ? sum1 : q.dx[at + next + j] + sum1;
  }
}

// By row: the logits' gradient of `step` and dx. kLast: the posteriors are an output, not the
// M-step's input.
template <bool kLast>
__device__ void rows_backward(const Sizes& s, const Gradients& q, const History& h,
                              const Given& out, const Mass& mass, int step) {
  const int lane = threadIdx.x % 32, K = s.components;
  const double direct = kLast ? given(out.likelihood, 0) / double(s.batch) : 0;
  for_rows(s, [&](int n) {
    const bool both = n + 1 < s.batch;
    if constexpr (!kLast) maximisation_rows(s, q, n, both);
    for (int r = 0; r < (both ? kRows : 1); ++r) {
      const int here = n + r;
      const double* const gamma = h.posteriors + (int64_t(step) * s.batch + here) * K;
      double* const row = q.dlogit + here * s.gamma_stride;
      double sum = 0;
      for (int k = lane; k < K; k += 32) {
        if constexpr (kLast)
          row[k] = given(out.posteriors, int64_t(here) * K + k) +
                   (given(out.marginals, k) - mass.along) * mass.inverse;
        // scattered: [B, K] with K = 7: a row is 56 bytes
        sum += gamma[k] * row[k];
      }
      sum = warp_sum(sum);
      for (int k = lane; k < K; k += 32) {
        // scattered: [B, K] with K = 7: a row is 56 bytes
        row[k] = kLast || !s.last_step ? gamma[k] * (row[k] - sum + direct) : 0;
        // scattered: [B, K] with K = 7: a row is 56 bytes
        if constexpr (!kLast) q.share[r * K + k] = gamma[k] * q.inverse[k];
      }
    }
    __syncwarp();
    add_dx<kLast>(s, q, n, both);
    __syncwarp();  // share is written again
  });
}

// By column: the gradient of the parameters of `step`, and what its M-step will ask for.
template <bool kLast>
__device__ void columns_backward(const Sizes& s, const Gradients& q, const History& h,
                                 const Given& out, int step) {
  const int lane = threadIdx.x % 32, first = lane / kColumns, K = s.components, d = s.width;
  for (int unit = threadIdx.x / 32; unit < K * s.chunks; unit += kWarps) {
    const int k = unit / s.chunks, chunk = unit % s.chunks, j = chunk * kColumns + lane % kColumns;
    const bool inside = j < d;
    const int own = k * s.stride + (inside ? j : 0);
    const double* const x = q.x + (inside ? j : 0);
    const double mu = inside ? q.mean[own] : 0, w = inside ? q.precision[own] : 0;
    double total = 0, dmu = 0, dv = 0;
#pragma unroll 4
    for (int n = first; n < s.batch; n += kSplit) {
      const double l = q.dlogit[n * s.gamma_stride + k];
      const double e = inside ? (x[n * s.row_stride] - mu) * w : 0;
      total += l;
      dmu += l * e;
      dv += l * (e * e - w);
    }
    total = column_sum(total);
    dmu = column_sum(dmu);
    dv = 0.5 * column_sum(dv);
    const double weight = h.weights[int64_t(step) * K + k];
    double dweight = weight >= kWeightFloor ? total / weight : 0;
    if constexpr (kLast) {
      dweight += given(out.weights, k);
      if (inside) dmu += given(out.means, int64_t(k) * d + j);
      if (inside) dv += given(out.variances, int64_t(k) * d + j);
    }
    double next_mean = 0, next_precision = 0;
    if (step > 0) {
      const int64_t at = (int64_t(step) * K + k) * d + j, before = at - int64_t(K) * d;
      const double raw = h.counts[int64_t(step - 1) * K + k], n_k = max(raw, kCountFloor);
      const bool kept = raw >= kCountFloor;
      double constant = 0;
      if (inside) {
        const double v = h.variances[at];
        if (!(v > s.floor)) dv = 0;
        // Kept: N_k is the sum of gamma and moves the moments; floored: it is a constant.
        constant = kept ? -dv * v : (dmu - dv * mu) * mu;
        next_mean = h.means[before];
        next_precision = 1 / h.variances[before];
      }
      constant = chunk_sum(constant);
      if (lane == 0) {
        if (chunk == 0) q.inverse[k] = 1 / n_k;
        if (chunk == 0 && kept) constant += n_k * dweight / double(s.batch);
        q.part[k * s.part_stride + chunk] = constant;
      }
    }
    __syncwarp();  // the lanes of a column have read what its first one now replaces
    if (!inside || first > 0) continue;
    q.dmean[own] = dmu;
    q.dvariance[own] = dv;
    if (step > 0) q.later[own] = next_mean, q.precision[own] = next_precision;
  }
}

// The start: the chosen rows, and the batch variance where the floor leaves it.
__device__ void start_backward(const Sizes& s, const Gradients& q, const History& h,
                               const int32_t* choice, bool start, real* dx) {
  for_rows(s, [&](int begin) {
    for (int n = begin; n < min(begin + kRows, s.batch); ++n)
      for (int j = threadIdx.x % 32; j < s.width; j += 32) {
        const bool moves = h.variances[j] > s.floor;
        double sum = q.dx[n * s.row_stride + j], dv = 0;
        for (int k = 0; k < s.components && start; ++k) {
          if (choice[k] == n) sum += q.dmean[k * s.stride + j];
          if (moves) dv += q.dvariance[k * s.stride + j];
        }
        sum += 2 * dv / double(s.batch) * (q.x[n * s.row_stride + j] - h.centre[j]);
        real& slot = dx[int64_t(n) * s.width + j];
        slot = real(double(slot) + sum);
      }
  });
}

template <Place kPlace>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ Sizes s, const real* x, const int32_t* choice,
                    const __grid_constant__ Given all, real* dx, double* state) {
  DYNAMIC_SHARED(double, shared);
  const int64_t m = blockIdx.x, begin = m * s.batch * s.width;
  const History h(s, state + m * s.share);
  Gradients q(s, areas<kPlace>(backward_work(s), shared, h.work));
  const Given out = all.of(s, m);
  const Mass mass(s, h, out.marginals);
  load_rows(s, x + begin, q.x);
  load_parameters(s, q, h);
  __syncthreads();
  rows_backward<true>(s, q, h, out, mass, s.iterations);
  __syncthreads();
  columns_backward<true>(s, q, h, out, s.iterations);
  for (int step = s.iterations - 1; step >= 0; --step) {
    // The columns left the means of this step in `later`.
    double* const mean = q.later;
    q.later = q.mean;
    q.mean = mean;
    __syncthreads();
    rows_backward<false>(s, q, h, out, mass, step);
    __syncthreads();
    if (s.last_step) break;
    columns_backward<false>(s, q, h, out, step);
  }
  __syncthreads();
  start_backward(s, q, h, choice + m * s.components, !s.last_step || s.iterations == 0, dx + begin);
}

}  // namespace

void gmm_backward(const Cuda& be, const GmmShape& shape, In x, std::span<const int32_t> choice,
                  In dweights, In dmeans, In dcovariances, In dposteriors, In dmarginals,
                  In dlog_likelihood, InOut dx, Scratch state) {
  check_gmm_backward(shape, x, choice, dweights, dmeans, dcovariances, dposteriors, dmarginals,
                     dlog_likelihood, dx, state, gmm_state_bytes(be, shape));
  if (dx.empty()) return;
  if (shape.options.covariance == GmmCovariance::full)
    return gmm_full_backward(be, shape, choice, dweights, dmeans, dcovariances, dposteriors,
                             dmarginals, dlog_likelihood, dx, state);
  if (shape.options.arithmetic == GmmArithmetic::products)
    return gmm_products_backward(be, shape, x, choice, dweights, dmeans, dcovariances, dposteriors,
                                 dmarginals, dlog_likelihood, dx, state);
  const Sizes s = sizes(shape);
  const Work work = backward_work(s);
  const auto kernel = place(work) == Place::all          ? backward_kernel<Place::all>
                      : place(work) == Place::parameters ? backward_kernel<Place::parameters>
                                                         : backward_kernel<Place::state>;
  // By rows 5 and 9, by columns 7 for a term.
  note_flops(kDouble * 21 * double(shape.options.iterations + 1) * gmm_terms(shape));
  launch(be, kernel, unsigned(shape.modalities), kThreads, shared_bytes(work), s, x.data(),
         choice.data(),
         Given{pointer(dweights), pointer(dmeans), pointer(dcovariances), pointer(dposteriors),
               pointer(dmarginals), pointer(dlog_likelihood)},
         dx.data(), reinterpret_cast<double*>(state.data()));
}

}  // namespace decalign::inline DECALIGN_REAL
