// The way back through the sweeps. Undoing the update of modality m, with u just after it and
// y = dphi_m / a_m: the plan tilted by y on m goes to dC, its sums off the other dphi.
#pragma once

#include "kernels/cuda/mot_paired.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

/// log q and phi of sweep t's end, of modalities beyond `last` in order those of sweep t - 1.
/// Barrier.
template <class S>
__device__ void load_state(S& s, const double* state, int64_t t, int last) {
  const int K = s.z.K;
  s.start = t < 0 || (t == 0 && last < s.z.M - 1);
  s.for_each(s.z.n, [&](int e) {
    const int place = e / K, i = s.order(place) * K + e % K;
    const int64_t sweep = place > last ? t - 1 : t;
    s.q[i] = s.log_of_state(state, sweep, i);
    s.phi[i] = sweep < 0 ? 0 : s.log_a[i] + s.q[i];
  });
  __syncthreads();
}

/// Undoes updates of three by products.
struct UnrollPaired {
  Paired& s;
  const double* state;
  double* z;  // u y, [K]

  /// u_m of sweep t. Whether it is in range, in every thread. Barrier.
  __device__ bool set_scalings(int64_t t, int m) const {
    bool fits = true;
    s.for_each(s.z.K, [&](int k) {
      const int i = m * s.z.K + k;
      const double x = s.log_of_state(state, t, i) - s.absorbed[i];
      fits = fits && abs(x) <= kDrift;
      s.rel[i] = exp(x);
      s.u[i] = (t < 0 ? 1 : s.a[i]) * s.rel[i];
    });
    return __syncthreads_and(fits);
  }

  /// P_m is at hand, and that of m's predecessor then. Barriers.
  __device__ void undo(int m) const {
    const int K = s.z.K, ld = s.z.ld, n = s.next(m), b = s.before(m);
    const double *un = s.u + n * K, *ub = s.u + b * K;
    s.for_each(K, [&](int k) {
      const int i = m * K + k;
      const double y = s.a[i] > 0 ? s.dphi[i] / s.a[i] : 0;
      s.da[i] += y;
      z[k] = y * s.a[i] * s.rel[i];
      s.dphi[i] = 0;
    });
    __syncthreads();
    s.products(b, un, [&](int i, int j, double sum) {
      const double x = s.X_of(b)[i * ld + j] * sum;
      s.W[i * ld + j] = x;
      s.dcost[s.place(b, i, j)] += ub[i] * z[j] * x;
    });
    s.products(n, z, [&](int i, int j, double sum) {
      s.dcost[s.place(n, i, j)] += un[i] * ub[j] * s.X_of(n)[i * ld + j] * sum;
    });
    s.for_each(K * K, [&](int at) {
      const int i = at / K, j = at - i * K;
      s.dcost[s.place(m, i, j)] += z[i] * un[j] * s.P[i * ld + j];
    });
    __syncthreads();
    s.for_rows(2 * K, K, false, [&](const Row& row) {
      const bool of_next = row.index >= K;
      const int k = row.index - (of_next ? K : 0);
      double sum = 0;
      for (int l = row.lane; l < K && row.inside; l += row.lanes)
        sum += z[l] * (of_next ? s.P[l * ld + k] : s.W[k * ld + l]);
      sum = row.sum(sum);
      if (row.first()) s.dphi[(of_next ? n : b) * K + k] -= (of_next ? un : ub)[k] * sum;
    });
    __syncthreads();
    double* const used = s.P;
    s.P = s.W;
    s.W = used;
  }

  /// Undoes updates from `update` down while the absorbed potentials do; returns the next one.
  __device__ int64_t run(int64_t update) const {
    bool fits = true;
    const int last = int(update % 3);
    for (int m = 0; m < 3; ++m) fits = set_scalings(update / 3 - (m > last), m) && fits;
    if (!fits) return update;
    s.products(last, s.u + s.before(last) * s.z.K, [&](int i, int j, double sum) {
      s.P[i * s.z.ld + j] = s.X_of(last)[i * s.z.ld + j] * sum;
    });
    __syncthreads();
    while (fits && update >= 0) {
      undo(int(update % 3));
      fits = set_scalings(update / 3 - 1, int(update % 3));
      --update;
    }
    return update;
  }
};

/// d/dphi_m is used up: what the update of modality m is undone by, into lambda and da. Barrier.
template <class S>
__device__ void take_up(const S& s, int m) {
  s.for_each(s.z.n, [&](int i) {
    const bool here = i / s.z.K == m;
    s.lambda[i] = here && s.a[i] > 0 ? s.dphi[i] / s.a[i] : 0;
    s.da[i] += s.lambda[i];
    if (here) s.dphi[i] = 0;
  });
  __syncthreads();
}

/// Adjoints of the value, at the plan that the sweeps ended with. Barrier.
template <class S>
__device__ void seed(const S& s, double g) {
  const bool primal = s.z.primal;
  s.for_each(s.z.c, [&](int i) { s.dcost[i] = g * s.plan[i]; });
  s.for_each(s.z.n, [&](int i) {
    s.da[i] = primal || !(s.a[i] > 0) ? 0 : g * s.phi[i];
    s.dphi[i] = primal ? 0 : g * (s.a[i] - s.reached[i]);
    s.lambda[i] = primal && isfinite(s.phi[i]) ? g * s.phi[i] : 0;
  });
  __syncthreads();
}

/// Fills dcost, da in units of epsilon; returns the value in the same. Barriers.
template <class S>
__device__ double unrolled(S& s, const double* state, int64_t sweeps, double g) {
  const int M = s.z.M;
  double value = 0;
  bool end = true, slow = false;
  for (int64_t left = sweeps * M;;) {
    const int64_t t = end ? sweeps - 1 : (left - 1) / M;
    const int place = end ? M - 1 : int((left - 1) % M), m = s.order(place);
    const bool fast = S::kUnrolls && !end && !slow;
    load_state(s, state, t, fast ? M - 1 : place);
    s.prepare();
    if constexpr (S::kUnrolls) {
      if (fast) {
        const int64_t before = left;
        if (s.ready) left = UnrollPaired{s, state, s.lambda}.run(left - 1) + 1;
        slow = left == before;
        if (left == 0) return value;
        continue;
      }
    }
    slow = false;
    if (end || S::kTiltsPlan) {
      s.make_plan();
      modality_sums(s, s.plan, s.reached);
    }
    if (end) {
      value = s.pairing(s.z.primal ? s.reached : s.a) - s.mass();
      seed(s, g);
    } else {
      take_up(s, m);
    }
    if (!end || s.z.primal || s.D != nullptr) {
      const double sign = end ? 1 : -1;
      s.tilt_plan(s.lambda);
      modality_sums(s, s.tilted, s.sums);
      s.for_each(s.z.c, [&](int i) { s.dcost[i] -= sign * s.tilted[i]; });
      s.for_each(s.z.n, [&](int i) {
        if (end || i / s.z.K != m) s.dphi[i] += sign * s.sums[i];
      });
      __syncthreads();
    }
    s.D = nullptr;
    if (!end) --left;
    end = false;
    if (left == 0) return value;
  }
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
