// Trees: log-sum-exp messages, each over one pair cost. A sweep is one tour down and up every edge.
// Tilts travel the same way, weighted by the plan that the messages made.
#pragma once

#include "kernels/cuda/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

struct Tree : Problem {
  static constexpr bool kTiltsPlan = true, kUnrolls = false;
  double *mu, *beta;  // [2 (M - 1), K]: log message, the sender's log weight; or their tilts

  __host__ __device__ Tree(const Sizes& sizes, double* memory) : Problem(sizes, memory) {
    mu = take(2 * z.pairs * z.K);
    beta = take(2 * z.pairs * z.K);
  }

  __device__ Home home(int m) const {
    const int message = z.graph.links[z.graph.link_begin[m]];
    return {message / 2, message % 2 == 1};
  }
  __device__ int order(int place) const { return z.graph.order[place]; }
  __device__ void prepare() {}

  /// Element k of what arrives at modality m, but for one message.
  __device__ double arrived(int m, int but, int k) const {
    double sum = 0;
    for (int l = z.graph.link_begin[m]; l < z.graph.link_begin[m + 1]; ++l)
      if (z.graph.links[l] != but) sum += mu[z.graph.links[l] * z.K + k];
    return sum;
  }
  /// Sets the message's beta from its sender's `own` (null: 0). Barriers before and after.
  __device__ double* gather(int message, const double* own) const {
    const int from = z.graph.ends[message];
    double* const out = beta + message * z.K;
    __syncthreads();
    for_each(z.K, [&](int k) {
      out[k] = (own != nullptr ? own[from * z.K + k] : 0) + arrived(from, message ^ 1, k);
    });
    __syncthreads();
    return out;
  }

  /// mu_j = log sum_i exp(beta_i - C_ij). Barrier before; none after.
  __device__ void send(int message) const {
    const double* const from = gather(message, phi);
    const int e = message / 2;
    const bool back = message % 2 == 1;
    for_rows(z.K, z.K, back, [&](const Row& row) {
      double top = kNothing, sum = 0;
      for (int i = row.lane; i < z.K && row.inside; i += row.lanes) {
        const double x = from[i] - (back ? cost_at(e, row.index, i) : cost_at(e, i, row.index));
        const double power = exp(-abs(x - top));
        sum = x > top ? sum * power + 1 : sum + power;
        top = max(x, top);
      }
      const double all = row.largest(top);
      sum = row.sum(sum * exp(top - all));
      if (row.first()) mu[message * z.K + row.index] = all + log(sum);
    });
  }

  /// nu_j: the mean of gamma_i + D_ij under the plan's weights. Barrier before; none after.
  __device__ void send_tilt(int message, const double* tilt) const {
    const double* const gamma = gather(message, tilt);
    const int e = message / 2, to = z.graph.ends[message ^ 1];
    const bool back = message % 2 == 1;
    for_rows(z.K, z.K, back, [&](const Row& row) {
      double sum = 0;
      for (int l = row.lane; l < z.K && row.inside; l += row.lanes) {
        const int i = back ? row.index : l, j = back ? l : row.index;
        sum += plan[(e * z.K + i) * z.K + j] * (gamma[l] + (D != nullptr ? D_at(e, i, j) : 0));
      }
      sum = row.sum(sum);
      if (!row.first()) return;
      const double mass = reached[to * z.K + row.index];
      mu[message * z.K + row.index] = mass > 0 ? sum / mass : 0;
    });
  }

  /// f(message) for the messages that go up, and for those that go down.
  template <class F>
  __device__ void pass(bool up, bool down, F&& f) const {
    for (int half = up ? 0 : 1; half < (down ? 2 : 1); ++half)
      for (int t = 0; t < 2 * z.pairs; ++t)
        if (z.graph.tour[t] % 2 == half) f(z.graph.tour[t] / 2);
    __syncthreads();
  }

  __device__ void make_plan() const {
    pass(true, true, [&](int message) { send(message); });
    for_each(z.c, [&](int at) {
      const int e = at / (z.K * z.K), i = at / z.K % z.K, j = at % z.K;
      plan[at] = exp(beta[2 * e * z.K + i] + beta[(2 * e + 1) * z.K + j] - cost_at(e, i, j));
    });
    __syncthreads();
  }

  __device__ void tilt_plan(const double* tilt) const {
    pass(true, true, [&](int message) { send_tilt(message, tilt); });
    for_each(z.c, [&](int at) {
      const int e = at / (z.K * z.K), i = at / z.K % z.K, j = at % z.K;
      const double weight =
          beta[2 * e * z.K + i] + beta[(2 * e + 1) * z.K + j] + (D != nullptr ? D_at(e, i, j) : 0);
      tilted[at] = plan[at] * weight;
    });
    __syncthreads();
  }

  __device__ void update(int m) const {
    __syncthreads();
    for_each(z.K, [&](int k) { set_potential(m * z.K + k, arrived(m, -1, k)); });
  }

  __device__ int64_t sweep(int64_t count, double tolerance, double* state) {
    if (count > 0) pass(true, false, [&](int message) { send(message); });
    for (int64_t t = 0; t < count; ++t) {
      update(z.graph.order[0]);
      for (int step = 0; step < 2 * z.pairs; ++step) {
        const int message = z.graph.tour[step] / 2;
        send(message);
        if (z.graph.tour[step] % 2 == 1) update(z.graph.ends[message ^ 1]);
      }
      start = false;
      __syncthreads();
      if (state != nullptr) store(state, t + 1);
      if (tolerance == 0) continue;
      pass(false, true, [&](int message) { send(message); });
      double error = 0;
      for_each(z.n,
               [&](int i) { error += abs(exp(phi[i] + arrived(i / z.K, -1, i % z.K)) - a[i]); });
      if (total(error) <= tolerance) return t + 1;
    }
    return count;
  }

  __device__ void hessian(const double* x, double* y) const {
    pass(true, true, [&](int message) { send_tilt(message, x); });
    for_each(z.n, [&](int i) { y[i] = reached[i] * (x[i] + arrived(i / z.K, -1, i % z.K)); });
    __syncthreads();
  }
};

}  // namespace decalign::inline DECALIGN_REAL::mot_block
