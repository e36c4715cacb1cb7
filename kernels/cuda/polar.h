// The orthogonal polar factor of a small matrix by a block; kernels/cpu/polar.h is its twin.
#pragma once

#include "kernels/cuda/small_matrix.h"
#include "kernels/polar_steps.h"

namespace decalign::inline DECALIGN_REAL::small {

/// The four matrices that it works with; x is given and becomes the factor.
struct PolarWork {
  double *x, *g, *square, *next;
};

// The sum of f(i, j) over [n, n], in every thread.
template <class F>
__device__ double sum_elements(int n, F f) {
  double sum = 0;
  for_elements(n, n, [&](int i, int j) { sum += f(i, j); });
  return block_sum<kThreads>(sum);
}

__device__ inline void set_steps(polar::Step& step, int at) {
  // Indexed by a run-time number, constants would lie in local memory.
  switch (at) {
#define DECALIGN_STEP(n)                                                 \
  case n:                                                                \
    step = {polar::kSteps[n].a, polar::kSteps[n].b, polar::kSteps[n].c}; \
    break;
    DECALIGN_STEP(0)
    DECALIGN_STEP(1)
    DECALIGN_STEP(2)
    DECALIGN_STEP(3)
    DECALIGN_STEP(4)
    DECALIGN_STEP(5)
    DECALIGN_STEP(6)
#undef DECALIGN_STEP
  }
}

/// w.x [n, n] becomes its orthogonal factor. Barriers before and after.
__device__ inline void orthogonal_factor(int n, PolarWork& w) {
  using namespace polar;
  const int ld = stride(n);
  const auto store_to = [ld](double* to) {
    return [to, ld](int i, int j, double value) { to[i * ld + j] = value; };
  };
  __syncthreads();
  const double norm = sqrt(sum_elements(n, [&](int i, int j) {
    const double e = w.x[i * ld + j];
    return e * e;
  }));
  const double unit = norm > 0 ? 1 / norm : 1, little = norm == 0 ? 1 : kLittle;
  for_elements(n, n, [&](int i, int j) {
    double& e = w.x[i * ld + j];
    e = e * unit + (i == j ? little : 0);
  });
  __syncthreads();
  product(n, n, n, transposed(w.x, n), as_is(w.x, n), store_to(w.g));
  __syncthreads();
  const double bound = kMargin * sqrt(sum_elements(n, [&](int i, int j) {
                         const double e = w.g[i * ld + j];
                         return e * e;
                       }));
  const double down = 1 / bound, root = sqrt(down);
  for_elements(n, n, [&](int i, int j) {
    w.g[i * ld + j] *= down;
    w.x[i * ld + j] *= root;
  });
  __syncthreads();
  int at = 0;
  for (int count = 0; count < kMostSteps; ++count, ++at) {
    if (count > 0) {
      product(n, n, n, transposed(w.x, n), as_is(w.x, n), store_to(w.g));
      __syncthreads();
    }
    const double far = sqrt(sum_elements(n, [&](int i, int j) {
      const double e = (i == j ? 1 : 0) - w.g[i * ld + j];
      return e * e;
    }));
    if (!(far < 1e300)) break;  // not a number
    const bool cubic = count > 0 && far<kCubicEnds, last = count> 0 && far < kQuinticEnds;
    if (last) at = kNewton;
    if (at > kNewton) at = far > kFar ? kAgain : kNewton;
    Step step{1.5, -0.5, 0};
    if (!cubic) {
      set_steps(step, at);
      product(n, n, n, as_is(w.g, n), as_is(w.g, n), store_to(w.square));
      __syncthreads();
    }
    for_elements(n, n, [&](int i, int j) {
      double& e = w.g[i * ld + j];
      e = step.b * e + (cubic ? 0 : step.c * w.square[i * ld + j]) + (i == j ? step.a : 0);
    });
    __syncthreads();
    product(n, n, n, as_is(w.x, n), as_is(w.g, n), store_to(w.next));
    __syncthreads();
    double* const old = w.x;
    w.x = w.next;
    w.next = old;
    if (last) break;
  }
}

}  // namespace decalign::inline DECALIGN_REAL::small
