// The complete graph by the plain sum over all K^M elements, the cost formed on the way: right for
// every M and every range, at an exponential an element.
#pragma once

#include "kernels/cuda/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

struct Stream : Problem {
  static constexpr bool kTiltsPlan = false;  // a tilted plan's sums follow from the plan's
  static constexpr bool kUnrolls = false;    // a way back of its own

  __host__ __device__ Stream(const Sizes& sizes, double* memory) : Problem(sizes, memory) {}

  __device__ int pair(int m, int n) const { return m * z.M - m * (m + 1) / 2 + n - m - 1; }
  __device__ Home home(int m) const { return m == 0 ? Home{0, true} : Home{m - 1, false}; }
  __device__ int order(int place) const { return place; }
  __device__ void prepare() {}

  /// Cost, or D, of index i of modality m with j of n.
  __device__ double cost_of(int m, int i, int n, int j) const {
    return m < n ? cost_at(pair(m, n), i, j) : cost_at(pair(n, m), j, i);
  }
  __device__ double D_of(int m, int i, int n, int j) const {
    return m < n ? D_at(pair(m, n), i, j) : D_at(pair(n, m), j, i);
  }

  struct Term {
    double exponent, weight;
  };
  /// Of index i of modality m, j of n and tuple o of the others: the exponent of T without m's
  /// potential, and the sum of what T is tilted by, of m and n alone without lambda.
  template <bool kTilt>
  __device__ Term term(int m, int i, int n, int j, int o, const double* tilt) const {
    Term t{phi[n * z.K + j] - cost_of(m, i, n, j), 0};
    if (kTilt && D != nullptr) t.weight += D_of(m, i, n, j);
    for (int b = 0; b < z.M; ++b) {
      if (b == m || b == n) continue;
      const int k = o % z.K;
      o /= z.K;
      t.exponent += phi[b * z.K + k] - cost_of(m, i, b, k) - cost_of(n, j, b, k);
      if (kTilt && tilt != nullptr) t.weight += tilt[b * z.K + k];
      if (kTilt && D != nullptr) t.weight += D_of(m, i, b, k) + D_of(n, j, b, k);
      for (int d = b + 1, rest = o; d < z.M; ++d) {
        if (d == m || d == n) continue;
        const int l = rest % z.K;
        rest /= z.K;
        t.exponent -= cost_at(pair(b, d), k, l);
        if (kTilt && D != nullptr) t.weight += D_at(pair(b, d), k, l);
      }
    }
    return t;
  }

  /// f(k, log of the sum over all modalities but m) in one thread for each k. No barrier.
  template <class F>
  __device__ void contraction(int m, F&& f) const {
    const int inner = m == z.M - 1 ? z.M - 2 : z.M - 1;
    for_rows(z.K, z.others * z.K, false, [&](const Row& row) {
      double top = kNothing, sum = 0;
      for (int l = row.lane; l < z.others * z.K && row.inside; l += row.lanes) {
        const double x = term<false>(m, row.index, inner, l % z.K, l / z.K, nullptr).exponent;
        const double e = exp(-abs(x - top));
        sum = x > top ? sum * e + 1 : sum + e;
        top = max(x, top);
      }
      const double all = row.largest(top);
      sum = row.sum(sum * exp(top - all));
      if (row.first()) f(row.index, all + log(sum));
    });
  }

  /// Elements [begin, end) of the pair sums of T, or of (sum of tilt and D) o T. Barrier.
  template <bool kTilt>
  __device__ void stream_sums(const double* tilt, double* out, int begin, int end) const {
    for_rows(end - begin, z.others, false, [&](const Row& row) {
      const int at = begin + row.index;
      double sum = 0;
      if (row.inside) {
        int e = at / (z.K * z.K), m = 0;
        const int i = at / z.K % z.K, j = at % z.K;
        for (; e >= z.M - 1 - m; ++m) e -= z.M - 1 - m;
        const int n = m + 1 + e;
        double weight = 0;
        if (tilt != nullptr) weight = tilt[m * z.K + i] + tilt[n * z.K + j];
        for (int o = row.lane; o < z.others; o += row.lanes) {
          const Term t = term<kTilt>(m, i, n, j, o, tilt);
          const double T = exp(phi[m * z.K + i] + t.exponent);
          sum += kTilt ? (weight + t.weight) * T : T;
        }
      }
      sum = row.sum(sum);
      if (row.first()) out[at] = sum;
    });
    __syncthreads();
  }

  __device__ void make_plan() const { stream_sums<false>(nullptr, plan, 0, z.c); }
  __device__ void tilt_plan(const double* tilt) const { stream_sums<true>(tilt, tilted, 0, z.c); }

  /// At most so many sweeps; returns how many. Barriers.
  __device__ int64_t sweep(int64_t count, double tolerance, double* state) {
    for (int64_t t = 0; t < count; ++t) {
      double error = 0;
      for (int step = 0; step < (tolerance > 0 ? 2 : 1) * z.M; ++step) {
        const int m = step % z.M;
        contraction(m, [&](int k, double log_sum) {
          const int i = m * z.K + k;
          if (step < z.M)
            set_potential(i, log_sum);
          else
            error += abs(exp(phi[i] + log_sum) - a[i]);
        });
        __syncthreads();
      }
      start = false;
      if (state != nullptr) store(state, t + 1);
      if (tolerance > 0 && total(error) <= tolerance) return t + 1;
    }
    return count;
  }

  /// y = the modality sums of (sum of x) o T, from the plan's pair sums. Barrier.
  __device__ void hessian(const double* x, double* y) const {
    for_rows(z.n, z.n, false, [&](const Row& row) {
      double sum = 0;
      if (row.inside) {
        const int m = row.index / z.K, i = row.index - m * z.K;
        for (int n = 0; n < z.M; ++n) {
          if (n == m) continue;
          const double* const T = plan + pair(min(m, n), max(m, n)) * z.K * z.K;
          for (int j = row.lane; j < z.K; j += row.lanes)
            sum += (m < n ? T[i * z.K + j] : T[j * z.K + i]) * x[n * z.K + j];
        }
      }
      sum = row.sum(sum);
      if (row.first()) y[row.index] = sum + reached[row.index] * x[row.index];
    });
    __syncthreads();
  }
};

}  // namespace decalign::inline DECALIGN_REAL::mot_block
