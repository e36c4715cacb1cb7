// The Hessian of the dual, and the end of a solve: damped Newton steps with it, and the plan.
// kernels/cpu/mot_newton.cpp has the method.
#pragma once

#include "kernels/cuda/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

/// Moves b into the Hessian's range: equal sums for every modality. Barriers.
template <class S>
__device__ void equalise(const S& s, double* b) {
  const int K = s.z.K;
  double mean = 0;
  s.for_each(s.z.n, [&](int i) { mean += b[i] / double(s.z.M); });
  mean = s.total(mean);
  s.for_rows(s.z.M, K, true, [&](const Row& row) {
    double sum = 0, mass = 0;
    for (int k = row.lane; k < K && row.inside; k += row.lanes) {
      sum += b[row.index * K + k];
      mass += s.reached[row.index * K + k];
    }
    sum = row.sum(sum), mass = row.sum(mass);
    for (int k = row.lane; k < K && row.inside && mass > 0; k += row.lanes)
      b[row.index * K + k] -= (sum - mean) * s.reached[row.index * K + k] / mass;
  });
  __syncthreads();
}

/// Solves (H + damping diag H) x = b by conjugate gradients; the plan's pair sums are in s.plan,
/// its modality sums in s.reached. Barriers.
template <class S>
__device__ void solve_hessian(const S& s, double damping, double* b, double* x) {
  const int n = s.z.n;
  equalise(s, b);
  const auto precondition = [&](int i) {
    s.scaled[i] = s.reached[i] > 1e-290 ? s.residual[i] / s.reached[i] : 0;
    return s.residual[i] * s.scaled[i];
  };
  double norm = 0;
  s.for_each(n, [&](int i) {
    s.residual[i] = b[i];
    x[i] = 0;
    norm += precondition(i);
    s.direction[i] = s.scaled[i];
  });
  norm = s.total(norm);
  const double begin = norm;
  const int limit = min(10 * n + 50, 5000);
  for (int step = 0; step < limit && norm > 1e-31 * begin; ++step) {
    s.hessian(s.direction, s.image);
    double curvature = 0;
    s.for_each(n, [&](int i) {
      s.image[i] += damping * s.reached[i] * s.direction[i];
      curvature += s.direction[i] * s.image[i];
    });
    curvature = s.total(curvature);
    if (!(curvature > 0)) break;
    const double alpha = norm / curvature, last = norm;
    norm = 0;
    s.for_each(n, [&](int i) {
      x[i] += alpha * s.direction[i];
      s.residual[i] -= alpha * s.image[i];
      norm += precondition(i);
    });
    norm = s.total(norm);
    s.for_each(n, [&](int i) { s.direction[i] = s.scaled[i] + norm / last * s.direction[i]; });
    __syncthreads();
  }
}

struct Outcome {
  double dual, mass, error;  // dual in units of epsilon
  int64_t newton_steps;
};

/// The modality sums, and what follows from them and the plan. Barriers.
template <class S>
__device__ Outcome look_at_plan(const S& s) {
  modality_sums(s, s.plan, s.reached);
  const double mass = s.mass(), dual = s.pairing(s.a) - mass;
  return {dual, mass, s.marginal_error(), 0};
}

/// Plan, modality sums and what follows from them, after at most `steps` Newton steps. Barriers.
template <class S>
__device__ Outcome finish(S& s, int64_t steps) {
  double *b = s.dphi, *x = s.da, *from = s.start_q;
  const int n = s.z.n;
  Outcome best{};
  double damping = 0, slope = 0, length = 0;  // length 0: the point at hand is where a step starts
  bool first = true;
  for (;;) {
    s.prepare();
    s.make_plan();
    const Outcome now = look_at_plan(s);
    if (first) {
      best = now;
      first = false;
    } else if (length > 0) {
      const double allow = 1e-14 * (1 + abs(best.dual));
      const bool refused = !(now.dual >= best.dual + 1e-4 * length * slope - allow) ||
                           (now.dual <= best.dual + allow && now.error >= best.error);
      if (refused) {
        length /= 2;
        if (length <= 0.05) length = 0;  // back, for a shorter, steeper step
        s.for_each(n, [&](int i) {
          s.q[i] = length > 0 ? from[i] + length * x[i] : from[i];
          s.phi[i] = s.log_a[i] + s.q[i];
        });
        __syncthreads();
        continue;
      }
      best = {now.dual, now.mass, now.error, best.newton_steps + 1};
      if (length == 1) damping = damping > 1e-6 ? damping / 10 : 0;
    } else {
      damping = max(1e-5, 10 * damping);
      if (damping > 1e3) return best;
      ++best.newton_steps;
    }
    if (best.newton_steps >= steps || best.error <= s.z.tolerance || !isfinite(best.dual))
      return best;
    s.for_each(n, [&](int i) {
      b[i] = s.a[i] - s.reached[i];
      from[i] = s.q[i];
    });
    __syncthreads();
    solve_hessian(s, damping, b, x);
    slope = s.dot(b, x);
    length = 1;
    s.for_each(n, [&](int i) {
      s.q[i] = from[i] + x[i];
      s.phi[i] = s.log_a[i] + s.q[i];
    });
    __syncthreads();
  }
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
