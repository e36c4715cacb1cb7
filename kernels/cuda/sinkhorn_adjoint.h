// The way back through single sweeps of a transport problem, in a block's hands: fast sweeps, and
// those by log-sum-exp.
#pragma once

#include "kernels/cuda/sinkhorn_steps.h"

namespace decalign::inline DECALIGN_REAL::transport {

// kM = 0: M at run time.
template <int kM>
struct Adjoint : Solver<kM> {
  using Base = Solver<kM>;
  using Base::absorbed, Base::log_u, Base::marginal, Base::z, Base::G, Base::thread, Base::threads;
  const double* scalings;
  // [N]: d/dG, and what was folded into d/d log G before a rebuild; T's direct share with it, in
  // units of C.
  double *dG, *dlogG;
  double *H, *dR;        // chains
  double *du, *ds, *da;  // [M, K]
  double* ring;          // [3, 2, M, K]: q and u of three sweeps

  __device__ Adjoint(const Problem& problem, const double* s, double* memory)
      : Base(problem, memory), scalings(s) {
    dG = Base::take(memory, z.N);
    dlogG = Base::take(memory, z.N);
    H = Base::take(memory, Base::chain_size());
    dR = Base::take(memory, Base::chain_size());
    du = Base::take(memory, z.n);
    ds = Base::take(memory, z.n);
    da = Base::take(memory, z.n);
    ring = Base::take(memory, 6 * z.n);
    for (int i = thread(); i < z.n; i += threads()) da[i] = 0;
    for (int i = thread(); i < z.N; i += threads()) dG[i] = 0;
    __syncthreads();
  }

  __device__ const double* stored(int64_t sweep) const { return scalings + sweep * z.n; }
  // Sweep t's scalings relative to `absorbed`; sweep -1 is the start, u = 1, of the release form.
  __device__ double* q_of(int64_t t) const { return ring + int(t + 3) % 3 * 2 * z.n; }
  __device__ double* u_of(int64_t t) const { return q_of(t) + z.n; }
  __device__ void set_scaling(int64_t t, int i, double value) const {
    const double q = z.log ? exp(value - absorbed[i]) : value;
    q_of(t)[i] = q;
    u_of(t)[i] = t < 0 ? 1 : marginal[i] * q;
  }
  __device__ void load(int64_t t) const {
    for (int i = thread(); i < z.n; i += threads())
      set_scaling(t, i, t < 0 ? (z.log ? absorbed[i] : 1) : stored(t)[i]);
  }

  // d/d(what a scaling was divided by), and into d/d marginal.
  __device__ void divide(int i, double slope, const double* q, const double* u) const {
    da[i] += slope * q[i];
    ds[i] = -slope * u[i] * q[i];
  }

  // The adjoint of fast sweep t. On entry du is d/d(u after it), on exit d/d(u before it). Loads
  // the scalings of sweep t - 2. True if the kernel at hand serves sweep t - 1, too.
  __device__ bool fast_sweep(int64_t t) const {
    const int M = Base::M(), K = z.K;
    const double *q = q_of(t), *u_old = u_of(t - 1);
    double* const u = u_of(t);
    // Asked for now, needed at the end.
    const double ahead = t > 1 && thread() < z.n ? stored(t - 2)[thread()] : 0;
    for (int k = thread(); k < K; k += threads()) {
      const int i = (M - 1) * K + k;
      divide(i, du[i], q, u);
    }
    if (M == 2) __syncthreads();
#pragma unroll
    for (int m = 1; m < M - 1; ++m) {  // the chains of the old and of the new u
      double* const out = Base::R + Base::level(M - 1 - m);
      Base::contract(u_old + (M - m) * K, Base::R_at(M - m), M - m,
                     [&](int p, double sum) { out[p] = sum; });
      Base::extend(u, m);
      __syncthreads();
    }
    inwards(q, u);
    return outwards(t, u, u_old, ahead);
  }

  __device__ void inwards(const double* q, double* u) const {
    const int M = Base::M(), K = z.K;
#pragma unroll
    for (int m = M - 1; m > 0; --m) {
      const double* const dU = H + Base::level(m);  // d/dU_{m+1}, for m < M - 1
      double* const below = H + Base::level(m - 1);
      const double *ds_m = ds + m * K, *u_m = u + m * K, *R = Base::R_at(m);
      const int length = Base::power(m);
      for (int p = thread(); p < length; p += threads()) {
        double sum = 0, more = 0;
#pragma unroll 4
        for (int k = 0; k < K; ++k) {
          sum += ds_m[k] * R[k * length + p];
          if (m < M - 1) more += u_m[k] * dU[k * length + p];
        }
        if (m > 1)
          below[p] = sum + more;
        else
          divide(p, du[p] + (sum + more), q, u);
      }
      __syncthreads();
      if (m == 1) break;
      Base::rows_dot(Base::U_at(u, m - 1), below, m - 1, [&](int k, double sum) {
        const int i = (m - 1) * K + k;
        divide(i, du[i] + sum, q, u);
      });
      __syncthreads();
    }
  }

  __device__ bool outwards(int64_t t, double* u, const double* u_old, double ahead) const {
    const int M = Base::M(), K = z.K;
    for (int k = thread(); k < K; k += threads()) du[k] = 0;
    bool fits = t > 1;
    for (int i = thread(); i < z.n && t > 0; i += threads()) {
      const double older = t == 1          ? (z.log ? absorbed[i] : 1)
                           : i == thread() ? ahead
                                           : stored(t - 2)[i];
      set_scaling(t - 2, i, older);
      if (z.log)
        fits = fits && abs(older - absorbed[i]) < kAbsorb &&
               abs(stored(t - 1)[i] - absorbed[i]) < kAbsorb;
    }
#pragma unroll
    for (int m = 1; m < M; ++m) {
      const double* const dR_m = m == 1 ? ds : dR + Base::level(m - 1);
      double *du_m = du + m * K, *out = m == M - 1 ? dG : dR + Base::level(m);
      const double *U = Base::U_at(u, m), *ds_m = ds + m * K, *old = u_old + m * K;
      Base::rows_dot(dR_m, Base::R_at(m), m, [&](int k, double sum) { du_m[k] = sum; });
      Base::for_outer(m, [&](int i, int k, int p) {
        const double slope = ds_m[k] * U[p] + old[k] * dR_m[p];
        if (m == M - 1)
          out[i] += slope;
        else
          out[i] = slope;
      });
      if (m < M - 1) __syncthreads();
    }
    return __syncthreads_and(fits);
  }

  // The adjoint of a sweep by log-sum-exp. On entry and exit du is d/d log u. G is work space.
  __device__ void slow_sweep(int64_t t) const {
    const int K = z.K;
    const double* const log_q = stored(t);
    const double* const before = t > 0 ? stored(t - 1) : nullptr;
    for (int m = Base::M() - 1; m >= 0; --m) {
      // log u as update m found it: new below m, old above.
      for (int i = thread(); i < z.n; i += threads()) {
        const double old = before ? log(marginal[i]) + before[i] : 0;
        log_u[i] = i < m * K ? log(marginal[i]) + log_q[i] : i < (m + 1) * K ? log_q[i] : old;
      }
      for (int k = thread(); k < K; k += threads()) {
        const int i = m * K + k;
        const bool some = marginal[i] > 0;
        ds[k] = some ? du[i] : 0;
        if (some) da[i] += du[i] / marginal[i];
        du[i] = 0;
      }
      __syncthreads();
      const double scale = -1 / z.epsilon;
      for (int i = thread(); i < z.N; i += threads()) {
        const int high = z.by_power[Base::table(m)](i);
        const int k = high - z.by_components(high) * K;
        const double slope = -ds[k] * exp(Base::joint(i, scale, log_u, -1));
        G[i] = slope;
        dlogG[i] += slope;
      }
      __syncthreads();
      for (int other = 0; other < Base::M(); ++other)
        if (other != m)
          Base::slice_sums(G, other, [&](int k, double sum) { du[other * K + k] += sum; });
      __syncthreads();
    }
  }

  __device__ void fold() const {
    for (int i = thread(); i < z.N; i += threads()) {
      dlogG[i] += dG[i] * G[i];
      dG[i] = 0;
    }
  }
};

}  // namespace decalign::inline DECALIGN_REAL::transport
