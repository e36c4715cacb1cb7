// One transport problem in a block's hands: its numbers, where they lie, and sums over the lanes of
// a row. kernels/cpu/mot_problem.h has the method; everything is in double and in units of epsilon.
//
// What is kept of a problem lies in shared memory where that suffices, else in scratch; the costs
// are read where the caller has them. All threads of the block take part in every function and
// agree on every decision.
#pragma once

#include <limits>

#include "kernels/check/mot.h"
#include "kernels/cuda/reduce.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNothing = -1e300;  // what stands for the logarithm of an empty sum's maximum
constexpr unsigned kAll = 0xffffffffu;

enum class Direction { forward, converged, unrolled };

/// A tree as device lists. Messages go along the edges: 2 e from edge e's first to its second
/// modality, 2 e + 1 back. A tour goes depth first down and up every edge once.
struct Graph {
  const int* ends;                // [2 (M - 1)] a message's sender
  const int* tour;                // [2 (M - 1)] 2 message + (whether it goes down)
  const int* order;               // [M] modalities in the order of the tour
  const int *link_begin, *links;  // [M + 1], [2 (M - 1)]: messages that arrive at a modality
};

struct Sizes {
  int M, K, pairs, n, ld;  // n = M K; ld: of the matrices of three, odd for the banks' sake
  int c;                   // pairs K^2
  int others;              // K^{M - 2}
  int64_t batch, state;    // state: doubles of a problem
  Direction direction;
  bool newton, primal, unrolled;
  bool wide;  // many blocks a problem
  int64_t halvings, max_sweeps, newton_steps;
  double epsilon, tolerance;
  double heat;  // 2^-halvings
  Graph graph;
  double* scratch;  // null: everything is in shared memory
  int64_t each;     // doubles of a problem's memory
};

/// Some lanes of a warp that share one sum. All lanes take part in what they do.
struct Row {
  int index, lane, lanes;
  bool inside;

  __device__ double sum(double value) const {
    for (int offset = lanes / 2; offset > 0; offset /= 2)
      value += __shfl_xor_sync(kAll, value, offset);
    return value;
  }
  __device__ double largest(double value) const {
    for (int offset = lanes / 2; offset > 0; offset /= 2)
      value = max(value, __shfl_xor_sync(kAll, value, offset));
    return value;
  }
  __device__ bool first() const { return inside && lane == 0; }
};

struct Problem {
  const Sizes& z;
  int64_t used = 0;
  double *a, *log_a, *q, *phi;                              // [M, K]: log q, log u
  double *reached, *lambda;                                 // [M, K]
  double* plan;                                             // [pairs, K, K]
  double *tilted, *dcost;                                   // [pairs, K, K] of the way back
  double *dphi, *da, *sums;                                 // [M, K]
  double *residual, *scaled, *direction, *image, *start_q;  // [M, K] of conjugate gradients
  const real *cost, *D;                                     // D: null, or the tilt of the plan
  double epsilon, scale, heat;
  bool start;

  __host__ __device__ Problem(const Sizes& sizes, double* memory) : z(sizes), base_(memory) {
    for (double** x : {&a, &log_a, &q, &phi, &reached, &lambda}) *x = take(z.n);
    plan = take(z.c);
    const bool back = z.direction != Direction::forward;
    for (double** x : {&tilted, &dcost}) *x = take(back ? z.c : 0);
    for (double** x : {&dphi, &da, &sums}) *x = take(back || z.newton ? z.n : 0);
    const bool gradients = z.newton || z.direction == Direction::converged;
    for (double** x : {&residual, &scaled, &direction, &image, &start_q})
      *x = take(gradients ? z.n : 0);
  }

  __host__ __device__ double* take(int64_t count) {
    const int64_t at = used;
    used += count;
    return base_ == nullptr ? nullptr : base_ + at;
  }

  static __device__ int thread() { return int(threadIdx.x); }
  static __device__ int threads() { return int(blockDim.x); }

  template <class F>
  __device__ void for_each(int count, F&& f) const {
    for (int i = thread(); i < count; i += threads()) f(i);
  }

  /// f(row) for rows of `length` terms, with as many lanes each as there are to spare; where terms
  /// lie side by side, warps that read them so.
  template <class F>
  __device__ void for_rows(int count, int length, bool side_by_side, F&& f) const {
    int shift = side_by_side && length >= 64 ? 5 : 0;
    while (shift < 5 && count <= threads() >> (shift + 1) && (1 << shift) < length) ++shift;
    const int lanes = 1 << shift, each = threads() >> shift;
    for (int first = 0; first < count; first += each) {
      const int index = first + (thread() >> shift);
      f(Row{index, thread() & (lanes - 1), lanes, index < count});
    }
  }

  /// The block's sum of `value`, in every thread. Barriers.
  __device__ double total(double value) const {
    return over(warp_sum(value), [](double x, double y) { return x + y; });
  }
  __device__ double largest(double value) const {
    return over(warp_max(value), [](double x, double y) { return max(x, y); });
  }

  /// Cost of pair e over the epsilon of the moment.
  __device__ double cost_at(int e, int i, int j) const {
    // scattered: a pair's matrix across its rows: from a few KB in the first-level cache
    return heat * (double(cost[(e * z.K + i) * z.K + j]) * scale);
  }
  __device__ double D_at(int e, int i, int j) const {
    // scattered: as the cost
    return double(D[(e * z.K + i) * z.K + j]);
  }

  /// Reads a problem; f = 0. Barriers.
  __device__ void read(const real* costs, const real* marginals) {
    cost = costs;
    D = nullptr;
    double top = 0;
    for_each(z.c, [&](int i) { top = max(top, abs(double(cost[i]))); });
    epsilon = max(z.epsilon, mot_detail::kSwamped * largest(top));
    scale = 1 / epsilon;
    heat = 1;
    start = true;
    for_each(z.n, [&](int i) {
      a[i] = double(marginals[i]);
      log_a[i] = log(a[i]);
      q[i] = phi[i] = 0;
    });
    __syncthreads();
  }

  /// Modality element i's log contraction is known. No barrier.
  __device__ void set_potential(int i, double log_sum) const {
    q[i] = isfinite(log_sum) ? -log_sum : 0;  // nothing arrives: no mass to scale
    phi[i] = log_a[i] + q[i];
  }

  /// f stays what it is while epsilon is halved. Barrier.
  __device__ void halve() {
    heat *= 2;
    if (!start)
      for_each(z.n, [&](int i) {
        q[i] = 2 * q[i] + (a[i] > 0 ? log_a[i] : 0);
        phi[i] = log_a[i] + q[i];
      });
    __syncthreads();
  }

  /// log q after `sweeps` sweeps. Barrier.
  __device__ void store(double* state, int64_t sweeps) const {
    for_each(z.n, [&](int i) { state[(sweeps - 1) * z.n + i] = q[i]; });
    __syncthreads();
  }

  __device__ double log_of_state(const double* state, int64_t sweep, int i) const {
    return sweep < 0 ? 0 : state[sweep * z.n + i];
  }

  /// sum of the marginals, or of the sums reached, times phi, in every thread. Barriers.
  __device__ double pairing(const double* weight) const {
    double sum = 0;
    for_each(z.n, [&](int i) {
      if (weight[i] > 0 && isfinite(phi[i])) sum += weight[i] * phi[i];
    });
    return total(sum);
  }
  __device__ double dot(const double* x, const double* y) const {
    double sum = 0;
    for_each(z.n, [&](int i) { sum += x[i] * y[i]; });
    return total(sum);
  }
  __device__ double mass() const {
    double sum = 0;
    for_each(z.K, [&](int k) { sum += reached[k]; });
    return total(sum);
  }
  __device__ double marginal_error() const {
    double sum = 0;
    for_each(z.n, [&](int i) { sum += abs(reached[i] - a[i]); });
    return total(sum);
  }

 private:
  template <class Combine>
  __device__ double over(double value, Combine combine) const {
    SHARED(double, part, [32]);
    __syncthreads();
    if (thread() % 32 == 0) part[thread() / 32] = value;
    __syncthreads();
    value = part[0];
    for (int w = 1; w < threads() / 32; ++w) value = combine(value, part[w]);
    return value;
  }

  double* base_;
};

/// Where the sums of a modality may be had: the rows or the columns of a pair.
struct Home {
  int pair;
  bool rows;
};

/// Modality sums [M, K] of what has these pair sums. Barrier.
template <class S>
__device__ void modality_sums(const S& s, const double* sums, double* out) {
  const int K = s.z.K;
  s.for_rows(s.z.n, K, false, [&](const Row& row) {
    double sum = 0;
    if (row.inside) {
      const int m = row.index / K, k = row.index - m * K;
      const Home home = s.home(m);
      const double* const x = sums + home.pair * K * K + (home.rows ? k * K : k);
      const int step = home.rows ? 1 : K;
      for (int j = row.lane; j < K; j += row.lanes) sum += x[j * step];
    }
    sum = row.sum(sum);
    if (row.first()) out[row.index] = sum;
  });
  __syncthreads();
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
