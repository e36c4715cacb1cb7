// The complete graph of three by matrix products, in the cyclic form of kernels/cpu/mot_paired.h:
//   T_pqr = u_p u_q u_r X_p[p, q] X_q[q, r] X_r[r, p],   X = exp(absorbed potentials - C / epsilon)
//   P_p[p, q] = X_p[p, q] sum_r X_r[r, p] u_r X_q[q, r],   T_pq = u_p u_q P_p
// One P_p serves the updates of p and q. Beyond the products' range the plain sum takes over.
#pragma once

#include "kernels/cuda/mot_stream.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

constexpr double kHighest = 200, kLowest = -708, kDrift = 30;  // exponents of X; of q / e^absorbed
constexpr double kFar = 10686474581524.463, kUsable = 1e60;    // e^kDrift; of a sum

struct Paired : Stream {
  static constexpr bool kUnrolls = true;
  double *X, *P, *W;           // [3, K, ld]; [K, ld] each
  double *u, *absorbed, *rel;  // [3, K]: q = rel e^absorbed
  double* shares;              // [3, 2, K]: of the absorbed potentials in pair p
  double *rows, *columns;      // [K]
  bool ready = false;          // X and u hold the potentials
  int touched = 0;             // within the first sweep: modalities that were updated

  __host__ __device__ Paired(const Sizes& sizes, double* memory) : Stream(sizes, memory) {
    const int64_t matrix = int64_t(z.K) * z.ld;
    X = take(3 * matrix);
    P = take(matrix);
    W = take(z.direction == Direction::unrolled ? matrix : 0);
    for (double** x : {&u, &absorbed, &rel}) *x = take(z.n);
    shares = take(2 * z.n);
    for (double** x : {&rows, &columns}) *x = take(z.K);
  }

  __device__ static int next(int m) { return m == 2 ? 0 : m + 1; }
  __device__ static int before(int m) { return m == 0 ? 2 : m - 1; }
  __device__ double* X_of(int p) const { return X + p * z.K * z.ld; }
  __device__ double* share_of(int p, int side) const { return shares + (2 * p + side) * z.K; }
  /// Where element [i, j] of cyclic pair p is among the pairs.
  __device__ int place(int p, int i, int j) const {
    return p == 2 ? (z.K + j) * z.K + i : (2 * p * z.K + i) * z.K + j;
  }
  __device__ double exponent(int p, int i, int j) const {
    return share_of(p, 0)[i] + share_of(p, 1)[j] - cost_of(p, i, next(p), j);
  }

  /// Moves shares between a modality's two pairs, so that their largest exponents are equal.
  __device__ void balance() const {
    for (int m = 0; m < 3; ++m) {
      const int other = before(m);
      for_rows(z.K, z.K, false, [&](const Row& row) {
        const int k = min(row.index, z.K - 1);
        const double mine = share_of(m, 0)[k], others = share_of(other, 1)[k];
        double top = -kInfinity, top_other = -kInfinity;
        for (int j = row.lane; j < z.K; j += row.lanes) {
          top = max(top, share_of(m, 1)[j] - cost_of(m, k, next(m), j));
          top_other = max(top_other, share_of(other, 0)[j] - cost_of(other, j, m, k));
        }
        const double move = 0.5 * (row.largest(top_other) + others - row.largest(top) - mine);
        __syncwarp();
        if (!row.first()) return;
        share_of(m, 0)[k] = mine + move;
        share_of(other, 1)[k] = others - move;
      });
      __syncthreads();
    }
  }

  /// What X is to absorb, and u relative to that. Barrier.
  __device__ void take_in() const {
    for_each(z.n, [&](int i) {
      const int m = i / z.K, k = i - m * z.K;
      const bool zero = start && m >= touched;
      absorbed[i] = zero ? 0 : q[i];
      rel[i] = 1;
      u[i] = zero ? 1 : a[i];
      share_of(m, 0)[k] = share_of(before(m), 1)[k] = 0.5 * absorbed[i];
    });
    __syncthreads();
  }

  struct Extent {
    double high, low;  // the largest exponent, and that of -exponents
  };
  /// Elements [begin, end) of X, and their extent in every thread. Barriers.
  __device__ Extent build(int begin, int end) const {
    double high = -kInfinity, low = -kInfinity;
    for_each(end - begin, [&](int e) {
      const int at = begin + e, p = at / (z.K * z.K), i = at / z.K % z.K, j = at % z.K;
      const double x = exponent(p, i, j);
      high = max(high, x), low = max(low, -x);
      X_of(p)[i * z.ld + j] = x < kLowest ? 0 : exp(x);
    });
    high = largest(high);
    return {high, largest(low)};
  }

  /// X is built: `ready` unless the range does not do, be it with other shares. Barriers.
  __device__ void judge(Extent x) {
    if (x.high > kHighest) {
      for (int again = 0; again < 4; ++again) balance();
      x = build(0, z.c);
    }
    // After a sweep the sums are 1 and what underflows carries nothing; before it are anything.
    ready = x.high <= kHighest && (!start || x.low <= -kLowest / 3);
    __syncthreads();
  }

  /// Absorbs the potentials at hand. Barriers.
  __device__ void prepare() {
    take_in();
    judge(build(0, z.c));
  }

  /// f(i, j, sum_l X_r[l, i] s_l X_q[j, l]) for every element of pair p. No barrier. A thread takes
  /// kTile^2 elements.
  template <int kTile, class F>
  __device__ void product(int p, const double* s, F&& f) const {
    const int K = z.K, ld = z.ld, part = ceil_div(K, kTile);
    const double *Xr = X_of(before(p)), *Xq = X_of(next(p));
    for (int t = thread(); t < part * part; t += threads()) {
      const int i0 = t / part, j0 = t - i0 * part;
      int row[kTile], column[kTile];
      double sum[kTile][kTile];
#pragma unroll
      for (int a = 0; a < kTile; ++a) {
        row[a] = min(i0 + a * part, K - 1);
        column[a] = min(j0 + a * part, K - 1) * ld;
#pragma unroll
        for (int b = 0; b < kTile; ++b) sum[a][b] = 0;
      }
      for (int l = 0; l < K; ++l) {
        const double factor = s[l];
        double x[kTile], y[kTile];
#pragma unroll
        for (int a = 0; a < kTile; ++a) x[a] = Xr[l * ld + row[a]] * factor;
#pragma unroll
        for (int b = 0; b < kTile; ++b) y[b] = Xq[column[b] + l];
#pragma unroll
        for (int a = 0; a < kTile; ++a)
#pragma unroll
          for (int b = 0; b < kTile; ++b) sum[a][b] += x[a] * y[b];
      }
#pragma unroll
      for (int a = 0; a < kTile; ++a)
#pragma unroll
        for (int b = 0; b < kTile; ++b)
          if (i0 + a * part < K && j0 + b * part < K) f(i0 + a * part, j0 + b * part, sum[a][b]);
    }
  }
  template <class F>
  __device__ void products(int p, const double* s, F&& f) const {
    if (z.K <= 16)
      product<1>(p, s, f);
    else
      product<2>(p, s, f);
  }

  __device__ void make_plan() const {
    if (!ready) return stream_sums<false>(nullptr, plan, 0, z.c);
    for (int p = 0; p < 3; ++p)
      products(p, u + before(p) * z.K, [&](int i, int j, double sum) {
        plan[place(p, i, j)] = u[p * z.K + i] * u[next(p) * z.K + j] * X_of(p)[i * z.ld + j] * sum;
      });
    __syncthreads();
  }

  __device__ void tilt_plan(const double* tilt) const {
    if (!ready) return stream_sums<true>(tilt, tilted, 0, z.c);
    const auto single = [&](int m, int k) { return tilt != nullptr ? tilt[m * z.K + k] : 0; };
    const auto tilt_of = [&](int p, int i, int j) {
      return D != nullptr ? D_of(p, i, next(p), j) : 0;
    };
    for_each(z.c, [&](int at) {
      const int p = at / (z.K * z.K), i = at / z.K % z.K, j = at % z.K, n = next(p), r = before(p);
      const double *Xr = X_of(r), *Xq = X_of(n);
      double plain = 0, more = 0;
      for (int l = 0; l < z.K; ++l) {
        const double x = Xr[l * z.ld + i] * u[r * z.K + l] * Xq[j * z.ld + l];
        plain += x;
        more += x * (single(r, l) + tilt_of(r, l, i) + tilt_of(n, j, l));
      }
      more += plain * (single(p, i) + single(n, j) + tilt_of(p, i, j));
      tilted[place(p, i, j)] = u[p * z.K + i] * u[n * z.K + j] * X_of(p)[i * z.ld + j] * more;
    });
    __syncthreads();
  }

  /// log q of the first `modalities`. Barriers before and after.
  __device__ void write_back(int modalities) const {
    __syncthreads();
    for_each(modalities * z.K, [&](int i) {
      q[i] = absorbed[i] + log(rel[i]);
      phi[i] = log_a[i] + q[i];
    });
    __syncthreads();
  }

  /// The L1 error by the sums of P_0, in every thread. Barriers.
  __device__ double group_error() const {
    double error = 0;
    for_rows(2 * z.K, z.K, false, [&](const Row& row) {
      const int m = row.index >= z.K, k = row.index - m * z.K;
      double sum = 0;
      for (int l = row.lane; l < z.K && row.inside; l += row.lanes)
        sum += (m == 0 ? P[k * z.ld + l] : P[l * z.ld + k]) * u[(1 - m) * z.K + l];
      sum = row.sum(sum);
      if (row.first()) error += abs(a[row.index] * (rel[row.index] * sum - 1));
    });
    return total(error);
  }

  /// Of one sum: whether it may be divided by, and whether its q is still near what was absorbed.
  struct Fit {
    bool usable = true, near = true;
    __device__ void look(double sum) {
      usable = usable && sum > 1 / kUsable && sum < kUsable;
      near = near && sum > 1 / kFar && sum < kFar;
    }
  };

  /// Updates of p and then of its next, by P_p. Barriers.
  __device__ void update_pair(int p, Fit& first, Fit& second) const {
    const int n = next(p);
    for_rows(z.K, z.K, true, [&](const Row& row) {
      double sum = 0;
      for (int j = row.lane; j < z.K && row.inside; j += row.lanes)
        sum += P[row.index * z.ld + j] * u[n * z.K + j];
      sum = row.sum(sum);
      if (!row.first()) return;
      first.look(sum);
      rows[row.index] = sum;
      u[p * z.K + row.index] = a[p * z.K + row.index] / sum;
    });
    __syncthreads();
    for_rows(z.K, z.K, false, [&](const Row& row) {
      double sum = 0;
      for (int i = row.lane; i < z.K && row.inside; i += row.lanes)
        sum += P[i * z.ld + row.index] * u[p * z.K + i];
      sum = row.sum(sum);
      if (!row.first()) return;
      second.look(sum);
      columns[row.index] = sum;
      u[n * z.K + row.index] = a[n * z.K + row.index] / sum;
    });
  }

  /// Updates until the end, or until other potentials have to be absorbed. True: at the end or
  /// converged.
  __device__ bool run(int64_t& updates, int64_t end, double tolerance, double* state) {
    while (updates < end) {
      const int p = int(updates % 3), n = next(p);
      products(p, u + before(p) * z.K,
               [&](int i, int j, double sum) { P[i * z.ld + j] = X_of(p)[i * z.ld + j] * sum; });
      __syncthreads();
      if (tolerance > 0 && p == 0 && updates > 0 && group_error() <= tolerance) {
        write_back(3);
        return true;
      }
      Fit first, second;
      update_pair(p, first, second);
      const bool far = __syncthreads_or(!first.near || !second.near);
      const bool unusable[] = {far && __syncthreads_or(!first.usable),
                               far && __syncthreads_or(!second.usable)};
      for (int side = 0; side < 2; ++side) {
        if (side == 0 ? unusable[0] : unusable[1]) {  // as it was before this update
          write_back(updates < 3 ? int(updates) : 3);
          return false;
        }
        const double* const sums = side == 0 ? rows : columns;
        for_each(z.K, [&](int k) { rel[(side == 0 ? p : n) * z.K + k] = 1 / sums[k]; });
        if (++updates >= 3) start = false;
        if (updates % 3 > 0) continue;
        if (state != nullptr || updates >= end) write_back(3);
        if (state != nullptr) store(state, updates / 3);
        if (updates >= end) return true;
      }
      if (!start && far) {
        write_back(3);
        return false;
      }
    }
    return true;
  }

  __device__ int64_t sweep(int64_t count, double tolerance, double* state) {
    int64_t updates = 0;
    while (updates < 3 * count) {
      const int64_t begin = updates;
      prepare();
      if (ready && run(updates, 3 * count, tolerance, state)) break;
      if (ready && updates > begin && !start) continue;
      do {  // to the end of the sweep by the plain sum
        const int m = int(updates % 3);
        contraction(m, [&](int k, double log_sum) { set_potential(m * z.K + k, log_sum); });
        __syncthreads();
        if (++updates % 3 > 0) continue;
        start = false;
        if (state != nullptr) store(state, updates / 3);
      } while (updates % 3 != 0);
    }
    return updates / 3;
  }
};

}  // namespace decalign::inline DECALIGN_REAL::mot_block
