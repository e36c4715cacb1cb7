#include "kernels/cuda/sinkhorn_steps.h"
#include "kernels/sinkhorn.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace transport;

constexpr double kLargest = 10686474581524.463;  // exp(kAbsorb)
constexpr double kInverseLargest = 9.357622968840175e-14;

struct Sweeps {
  int64_t largest;
  double tolerance;
  double entropy_weight, entropy_shift;
  double* scalings;
  real *value, *report;
};

template <int kM>
struct Forward : Solver<kM> {
  using Base = Solver<kM>;
  using Base::absorbed, Base::log_u, Base::marginal, Base::z, Base::G, Base::thread, Base::threads;
  const Sweeps& sweeps;
  double *u, *reached;  // u relative to the absorbed potentials, which are log q

  __device__ Forward(const Problem& problem, const Sweeps& s, double* memory)
      : Base(problem, memory), sweeps(s) {
    u = Base::take(memory, z.n);
    reached = Base::take(memory, z.n);
    for (int i = thread(); i < z.n; i += threads()) u[i] = 1;
    __syncthreads();
  }

  __device__ double* row(int64_t sweep) const { return sweeps.scalings + sweep * z.n; }

  // The contraction of each modality with the others, from the newest u: update(m, k, contraction)
  // in one thread each, which may change u. Without the last modality if !last. No barrier at the
  // end.
  template <class F>
  __device__ void traverse(bool last, F&& update) const {
    const int M = Base::M();
#pragma unroll
    for (int m = M - 1; m > 1; --m) {
      double* const out = Base::R + Base::level(m - 1);
      Base::contract(u + m * z.K, Base::R_at(m), m, [&](int p, double sum) { out[p] = sum; });
      __syncthreads();
    }
    Base::contract(u + z.K, Base::R_at(1), 1, [&](int k, double sum) { update(0, k, sum); });
#pragma unroll
    for (int m = 1; m < M; ++m) {
      if (m == M - 1 && !last) break;
      __syncthreads();
      if (m > 1) {
        Base::extend(u, m - 1);
        __syncthreads();
      }
      Base::rows_dot(Base::U_at(u, m), Base::R_at(m), m,
                     [&](int k, double sum) { update(m, k, sum); });
    }
  }

  // Marginals of T (for modalities 0 .. M - 2 only, if !last) and their L1 error.
  __device__ double marginal_error(bool last) const {
    double error = 0;
    traverse(last, [&](int m, int k, double sum) {
      const int i = m * z.K + k;
      const double r = u[i] * sum;
      reached[i] = r;
      error += abs(r - marginal[i]);
    });
    return Base::total(error);
  }

  // Log of contraction m for log u (-inf where u is 0), about the maximum: f(k, log). Where all is
  // -inf, 0. G is work space.
  template <class F>
  __device__ void log_contraction(int m, F&& f) const {
    const double lowest = -kInfinity, scale = -1 / z.epsilon;
    const int length = Base::power(Base::M() - 1);
    Base::for_slices(m, [&](const typename Base::Slice& s) {
      double top = lowest, sum = 0;
      for (int e = s.lane; e < length && s.inside; e += s.lanes) {
        const int i = Base::slice_element(m, s.k, e);
        const double value = Base::joint(i, scale, log_u, m);
        G[i] = value;
        top = max(top, value);
      }
      top = s.largest(top);
      if (top > lowest)
        for (int e = s.lane; e < length; e += s.lanes)
          sum += exp(G[Base::slice_element(m, s.k, e)] - top);
      sum = s.sum(sum);
      if (s.lane == 0 && s.inside) f(s.k, top > lowest ? top + log(sum) : 0);
    });
  }

  // One sweep by log-sum-exp, then a kernel that absorbed its result.
  __device__ void slow_sweep(double* to) const {
    for (int i = thread(); i < z.n; i += threads()) log_u[i] = log(u[i]) + absorbed[i];
    __syncthreads();
    for (int m = 0; m < Base::M(); ++m) {
      log_contraction(m, [&](int k, double g) {
        const int i = m * z.K + k;
        absorbed[i] = to[i] = -g;
        log_u[i] = log(marginal[i]) - g;
        u[i] = marginal[i];
      });
      __syncthreads();
    }
    Base::build_kernel();
    __syncthreads();
  }

  // Sweeps [first, end) were stored as q relative to `absorbed`: to log q.
  __device__ void store_logs(int64_t first, int64_t end) const {
    double* const logs = row(first);
    const int count = int(end - first) * z.n;
    for (int e = thread(); e < count; e += threads()) logs[e] = log(logs[e]) + absorbed[e % z.n];
    __syncthreads();
  }

  // After `sweep` took some scalings out of range: a new kernel; those from `raw` on are stored as
  // q.
  __device__ void rebuild(int64_t sweep, int64_t raw, bool usable) const {
    double* const now = row(sweep);
    if (usable) {
      store_logs(raw, sweep + 1);
      for (int i = thread(); i < z.n; i += threads()) absorbed[i] = now[i], u[i] = marginal[i];
      __syncthreads();
      Base::build_kernel();
      __syncthreads();
      return;
    }
    const double* const before = now - z.n;  // sweep 0 is never a fast one
    for (int i = thread(); i < z.n; i += threads())
      u[i] = sweep > raw ? marginal[i] * before[i] : marginal[i];
    __syncthreads();
    store_logs(raw, sweep);
    slow_sweep(now);
  }

  __device__ int64_t run() const {
    int64_t sweep = 0, raw = 0;
    if (!z.log || sweeps.largest == 0) {
      Base::build_kernel();
      __syncthreads();
    } else {
      slow_sweep(row(0));
      sweep = raw = 1;
    }
    for (; sweep < sweeps.largest; ++sweep) {
      if (z.log && sweeps.tolerance > 0 && marginal_error(false) <= sweeps.tolerance) break;
      double* const to = row(sweep);
      bool out = false, unusable = false;
      traverse(true, [&](int m, int k, double sum) {
        const int i = m * z.K + k;
        const double q = 1 / (sum + z.guard);
        // scattered: K numbers a modality and sweep, at any offset
        to[i] = q;
        u[i] = marginal[i] * q;
        if (z.log) {
          out |= !(q > kInverseLargest && q < kLargest);
          unusable |= !(q > 1 / kUsable && q < kUsable);
        }
      });
      if (!z.log) {
        __syncthreads();
      } else if (__syncthreads_or(out)) {
        rebuild(sweep, raw, !__syncthreads_or(unusable));
        raw = sweep + 1;
      }
    }
    if (z.log) store_logs(raw, sweep);
    return sweep;
  }

  __device__ void report(int64_t done) const {
    const double error = marginal_error(true);  // its last barriers complete `reached`
    double mass = 0, cost = 0, entropy = 0;
    if (z.log) {
      // epsilon log T = -C + epsilon sum log u: <T, C> + epsilon <T, log T> needs the marginals
      // only.
      for (int i = thread(); i < z.n; i += threads()) {
        cost += z.epsilon * reached[i] * Base::log_scaling(u, i);
        if (i < z.K) mass += reached[i];
      }
    } else {
      const double *inner = Base::U_at(u, Base::M() - 1), *last = u + (Base::M() - 1) * z.K;
      Base::for_outer(Base::M() - 1, [&](int i, int k, int p) {
        const double t = inner[p] * last[k] * G[i];
        mass += t;
        cost += t * Base::joint(i, 1, nullptr, -1);
        entropy += t * log(max(t, kPlanFloor));
      });
    }
    mass = Base::total(mass);
    cost = Base::total(cost);
    entropy = Base::total(entropy);
    if (thread() > 0) return;
    *sweeps.value = real(cost + sweeps.entropy_weight * (entropy - sweeps.entropy_shift * mass));
    sweeps.report[0] = real(mass);
    sweeps.report[1] = real(error);
    sweeps.report[2] = real(done);
  }
};

template <int kM, bool kShared>
__global__ void __launch_bounds__(max_threads(kShared), 1)
    forward_kernel(const __grid_constant__ Problem z, const __grid_constant__ Sweeps sweeps) {
  DYNAMIC_SHARED(double, shared);
  const Forward<kM> solver(z, sweeps, kShared ? shared : z.scratch);
  solver.report(solver.run());
}

}  // namespace

size_t sinkhorn_scratch_bytes(const Cuda&, const SinkhornShape& s) {
  const size_t bytes = memory_bytes(s);
  return bytes <= kSharedBytes ? 0 : bytes;
}

void sinkhorn_forward(const Cuda& be, const SinkhornShape& s, In cost, In marginals,
                      std::span<double> scalings, Out value, Out report, Scratch scratch) {
  check_sinkhorn_sizes(s);
  check_sinkhorn(s, cost, marginals, std::ssize(scalings), report, value, scratch,
                 sinkhorn_scratch_bytes(be, s));
  const SinkhornOptions& o = s.options;
  const Problem z = make_problem(s, cost, marginals, scratch);
  const Sweeps sweeps{o.max_sweeps,
                      o.tolerance,
                      o.log_domain ? z.epsilon : o.epsilon,
                      o.entropy == OtEntropy::log_minus_one ? 1.0 : 0.0,
                      scalings.data(),
                      value.data(),
                      report.data()};
  const bool shared = z.scratch == nullptr;
  const auto kernel = z.M == 3 ? shared ? forward_kernel<3, true> : forward_kernel<3, false>
                      : shared ? forward_kernel<0, true>
                               : forward_kernel<0, false>;
  // At most: a sweep reads the kernel twice.
  note_flops(kDouble * 4 * double(z.N + chain_size(s)) * double(o.max_sweeps));
  launch(be, kernel, 1, unsigned(block_threads(s)), shared ? memory_bytes(s) : 0, z, sweeps);
}

}  // namespace decalign::inline DECALIGN_REAL
