// One transport problem in a block's hands, and the contractions that its sweeps are made of.
// Shared by the forward and the backward kernel; kernels/cpu/sinkhorn_solver.h has the method.
//
// Everything in double, in shared memory where it fits (dense arrays, chains and vectors), else in
// scratch. With M a constant the loops over modalities unroll and every size is a constant of the
// launch.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/check/sinkhorn.h"
#include "kernels/cuda/reduce.h"

namespace decalign::inline DECALIGN_REAL::transport {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Threads of a block at most. Addresses in scratch take registers.
constexpr int max_threads(bool shared) { return shared ? 512 : 256; }
constexpr int kLevels = 24;                  // K >= 2 allows so many modalities
constexpr size_t kSharedBytes = 160 * 1024;  // what a block may have on sm_80, too
constexpr int kWide = 4096;                  // a row of so many elements is worth all warps

// i / d for i < 2^24 by a multiplication.
struct Divider {
  uint32_t magic;
  int32_t shift;

  __device__ int operator()(int i) const { return int((uint64_t(i) * magic) >> shift); }
};

struct Problem {
  int M, K, N, n;  // N = K^M, n = M K
  bool log;
  double epsilon, guard;
  const real *cost, *marginals;
  double* scratch;  // null: everything is in shared memory
  // Of modality m: K^m; where level m of a chain starts; log2 of the lanes that share a row of K^m
  // elements, or -1: all warps.
  int power[kLevels + 1], level[kLevels + 1], row_shift[kLevels + 1];
  int slice_shift[kLevels + 1];  // log2 of the digits of modality m that a warp takes side by side
  Divider by_components, by_power[kLevels + 1];
};

// kM = 0: M at run time.
template <int kM>
struct Solver {
  const Problem& z;
  double *G, *R, *U;                    // [N] kernel; chains
  double *marginal, *absorbed, *log_u;  // [M, K] each
  double* part;                         // [32]

  __device__ Solver(const Problem& problem, double*& memory) : z(problem) {
    G = take(memory, z.N);
    R = take(memory, chain_size());
    U = take(memory, chain_size());
    marginal = take(memory, z.n);
    absorbed = take(memory, z.n);
    log_u = take(memory, z.n);
    part = take(memory, 32);
    for (int i = thread(); i < z.n; i += threads()) {
      marginal[i] = double(z.marginals[i]);
      absorbed[i] = 0;
    }
  }

  static __device__ double* take(double*& memory, int64_t n) {
    double* const p = memory;
    memory += n;
    return p;
  }
  static __device__ int thread() { return int(threadIdx.x); }
  static __device__ int threads() { return int(blockDim.x); }
  __device__ int M() const { return kM ? kM : z.M; }
  // Beyond kLevels modalities K is 1.
  __device__ int table(int m) const { return kM ? m : min(m, kLevels); }
  __device__ int power(int m) const { return z.power[table(m)]; }
  __device__ int level(int m) const { return kM || z.K > 1 ? z.level[table(m)] : m; }
  __device__ int chain_size() const { return level(M() - 1); }
  __device__ double* R_at(int m) const { return m == M() - 1 ? G : R + level(m); }
  /// u_{m-1} x ... x u_0
  __device__ double* U_at(double* u, int m) const { return m == 1 ? u : U + level(m - 1); }

  /// The block's sum of `value`, in every thread. Barriers.
  __device__ double total(double value) const {
    value = warp_sum(value);
    __syncthreads();
    if (thread() % 32 == 0) part[thread() / 32] = value;
    __syncthreads();
    value = part[0];
    for (int w = 1; w < threads() / 32; ++w) value += part[w];
    return value;
  }

  /// f(k, sum over p of u[p] x[k, p]) in one thread for each k; p < K^m.
  template <class F>
  __device__ void rows_dot(const double* u, const double* x, int m, F&& f) const {
    const int length = power(m), shift = z.row_shift[table(m)];
    if (shift < 0) {
      for (int k = 0; k < z.K; ++k) {
        const double* const row = x + k * length;
        double sum = 0;
#pragma unroll 4
        for (int p = thread(); p < length; p += threads()) sum += u[p] * row[p];
        sum = total(sum);
        if (thread() == 0) f(k, sum);
      }
      return;
    }
    const int lane = thread() % 32, width = 1 << shift, per_warp = 32 >> shift;
    for (int first = thread() / 32 * per_warp; first < z.K; first += threads() / 32 * per_warp) {
      const int k = first + (lane >> shift);
      double sum = 0, sum2 = 0;
      if (k < z.K) {
        const double* const row = x + k * length;
        int p = lane & (width - 1);
#pragma unroll 2
        for (; p + width < length; p += 2 * width) {
          sum += u[p] * row[p];
          sum2 += u[p + width] * row[p + width];
        }
        if (p < length) sum += u[p] * row[p];
      }
      sum += sum2;
      for (int offset = width / 2; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      if (k < z.K && (lane & (width - 1)) == 0) f(k, sum);
    }
  }

  /// f(p, sum over k of w[k] x[k, p]) for each p < K^m.
  template <class F>
  __device__ void contract(const double* w, const double* x, int m, F&& f) const {
    const int length = power(m);
    for (int p = thread(); p < length; p += threads()) {
      double sum = 0, sum2 = 0;
      int k = 0;
#pragma unroll 4
      for (; k + 1 < z.K; k += 2) {
        sum += w[k] * x[k * length + p];
        sum2 += w[k + 1] * x[(k + 1) * length + p];
      }
      if (k < z.K) sum += w[k] * x[k * length + p];
      f(p, sum + sum2);
    }
  }

  /// f(i, k, p) for each element i of [K, K^m] = [k, p].
  template <class F>
  __device__ void for_outer(int m, F&& f) const {
    const int length = power(m);
    for (int i = thread(); i < length * z.K; i += threads()) {
      const int k = z.by_power[table(m)](i);
      f(i, k, i - k * length);
    }
  }

  /// U_{m+1} = u_m x U_m, for 0 < m < M - 1
  __device__ void extend(double* u, int m) const {
    const double *um = u + m * z.K, *inner = U_at(u, m);
    double* const out = U + level(m);
    for_outer(m, [&](int i, int k, int p) { out[i] = um[k] * inner[p]; });
  }

  /// scale C, then the potentials of every modality but `skip`, at element i.
  __device__ double joint(int i, double scale, const double* potential, int skip) const {
    const real* pair = z.cost;
    double sum = 0;
    int rest = i;
#pragma unroll
    for (int m = 0; m < M() - 1; ++m) {
      const int above = z.by_components(rest), a = (rest - above * z.K) * z.K;
      int r = rest = above;
#pragma unroll
      for (int j = m + 1; j < M(); ++j, pair += z.K * z.K) {
        const int next = z.by_components(r);
        // scattered: digits of i: from a few KB in the first-level cache, once a kernel
        sum += double(pair[a + r - next * z.K]);
        r = next;
      }
    }
    sum *= scale;
    if (!potential) return sum;
    // One after the other, for what they sum to is much smaller than they are.
    rest = i;
#pragma unroll
    for (int m = 0; m < M(); ++m) {
      const int above = z.by_components(rest);
      if (m != skip) sum += potential[m * z.K + rest - above * z.K];
      rest = above;
    }
    return sum;
  }

  /// G = exp(-C / epsilon + absorbed potentials), or the release's clamped kernel.
  __device__ void build_kernel() const {
    const double scale = -1 / z.epsilon, low = z.log ? 0 : kKernelFloor;
    for (int i = thread(); i < z.N; i += threads()) {
      const double e = joint(i, scale, z.log ? absorbed : nullptr, -1);
      G[i] = max(exp(min(e, kLargestLog)), low);
    }
  }

  /// Element e of those with digit k of modality m.
  __device__ int slice_element(int m, int k, int e) const {
    const int high = z.by_power[table(m)](e);
    return (high * z.K + k) * power(m) + e - high * power(m);
  }

  /// The lanes of a warp that share a digit of a modality. All lanes take part in what follows.
  struct Slice {
    int k, lane, lanes;  // the digit; which of its lanes this is
    bool inside;         // k < K

    template <class Combine>
    __device__ double over(double value, Combine combine) const {
      for (int offset = 16; offset >= 32 / lanes; offset /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
      return value;
    }
    __device__ double sum(double value) const {
      return over(value, [](double a, double b) { return a + b; });
    }
    __device__ double largest(double value) const {
      return over(value, [](double a, double b) { return max(a, b); });
    }
  };
  /// f(slice) for every digit of modality m.
  template <class F>
  __device__ void for_slices(int m, F&& f) const {
    const int shift = z.slice_shift[table(m)], lane = thread() % 32;
    for (int first = thread() / 32 << shift; first < z.K; first += threads() / 32 << shift) {
      const int k = first + (lane & ((1 << shift) - 1));
      f(Slice{k, lane >> shift, 32 >> shift, k < z.K});
    }
  }

  /// For every k, f(k, sum) of x over the elements with digit k of modality m.
  template <class F>
  __device__ void slice_sums(const double* x, int m, F&& f) const {
    const int length = power(M() - 1);
    for_slices(m, [&](const Slice& s) {
      double sum = 0;
      for (int e = s.lane; e < length && s.inside; e += s.lanes) sum += x[slice_element(m, s.k, e)];
      sum = s.sum(sum);
      if (s.lane == 0 && s.inside) f(s.k, sum);
    });
  }

  /// Log u where u > 0, else 0.
  __device__ double log_scaling(const double* u, int i) const {
    return u[i] > 0 ? log(u[i]) + absorbed[i] : 0;
  }
};

/// The doubles that Solver takes.
inline int64_t solver_size(const Problem& z, int64_t chain) {
  return z.N + 2 * chain + 3 * z.n + 32;
}

/// Elements of a chain: its levels 0 .. M - 2.
inline int64_t chain_size(const SinkhornShape& s) {
  int64_t size = 0, level = 1;
  for (int64_t m = 1; m < s.modalities; ++m) size += level *= s.components;
  return size;
}

/// Bytes that the backward kernel needs, and the forward kernel with them.
inline size_t memory_bytes(const SinkhornShape& s) {
  const int64_t n = s.modalities * s.components;
  return sizeof(double) *
         size_t(3 * check_sinkhorn_sizes(s) + 4 * chain_size(s) + (3 + 6 + 3) * n + 32);
}

inline bool in_shared(const SinkhornShape& s) { return memory_bytes(s) <= kSharedBytes; }

inline Divider divider(int64_t d) {
  int shift = 24;
  while ((int64_t(1) << (shift - 24)) < d) ++shift;
  return {uint32_t(((int64_t(1) << shift) + d - 1) / d), shift};
}

/// Threads of the block: one per element of the contraction of the last modality, or for two
/// modalities two elements of the kernel each.
inline int block_threads(const SinkhornShape& s) {
  const int64_t N = check_sinkhorn_sizes(s);
  const int64_t wanted = s.modalities == 2 ? N / 2 : N / s.components;
  return int(std::clamp<int64_t>((wanted + 31) / 32 * 32, 32, max_threads(in_shared(s))));
}

/// Digits side by side: as few as keep it to two of their elements in a bank.
inline int slice_shift(int64_t K, int m) {
  if (m == 0) return K % 16 == 0 ? 3 : K % 8 == 0 ? 2 : K % 4 == 0 ? 1 : 0;
  return m == 1 && K <= 10 ? 1 : 0;
}

inline Problem make_problem(const SinkhornShape& s, In cost, In marginals, Scratch scratch) {
  Problem z{};
  z.M = int(s.modalities), z.K = int(s.components), z.N = int(check_sinkhorn_sizes(s));
  z.n = z.M * z.K;
  z.log = s.options.log_domain;
  z.epsilon = std::max(s.options.epsilon, kEpsilonFloor);
  z.guard = z.log ? 0 : kGuard;
  z.cost = cost.data(), z.marginals = marginals.data();
  z.scratch = in_shared(s) ? nullptr : reinterpret_cast<double*>(scratch.data());
  z.by_components = divider(z.K);
  int64_t power = 1, level = 0;
  for (int m = 0; m <= std::min(z.M, kLevels); ++m) {
    z.power[m] = int(power);
    z.level[m] = int(level);
    z.by_power[m] = divider(power);
    z.slice_shift[m] = slice_shift(z.K, m);
    while ((2 << z.row_shift[m]) * z.K <= block_threads(s) && z.row_shift[m] < 5 &&
           (1 << z.row_shift[m]) < power)
      ++z.row_shift[m];
    if (power >= kWide && 32 * z.K < block_threads(s)) z.row_shift[m] = -1;
    power *= z.K;
    level += power;
  }
  return z;
}

}  // namespace decalign::inline DECALIGN_REAL::transport
