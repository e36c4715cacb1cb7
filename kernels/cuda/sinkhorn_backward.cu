#include "kernels/cuda/sinkhorn_adjoint.h"
#include "kernels/sinkhorn.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace transport;

struct Gradients {
  bool envelope;
  double entropy_weight, entropy_shift;
  const double* scalings;
  const real *report, *dvalue;
  real *dcost, *dmarginals;
};

template <int kM>
struct Backward : Adjoint<kM> {
  using Base = Adjoint<kM>;
  using Base::absorbed, Base::da, Base::dG, Base::dlogG, Base::du, Base::G, Base::H, Base::load,
      Base::log_u, Base::marginal, Base::stored, Base::thread, Base::threads, Base::u_of, Base::z;
  const Gradients& gradients;
  double g;

  __device__ Backward(const Problem& problem, const Gradients& s, double* memory)
      : Base(problem, s.scalings, memory), gradients(s), g(double(*s.dvalue)) {}

  // A kernel that absorbed sweep t, for t and the sweep before it; du from d/d log u.
  __device__ void absorb(int64_t t) const {
    for (int i = thread(); i < z.n; i += threads()) absorbed[i] = stored(t)[i];
    __syncthreads();
    Base::build_kernel();
    load(t);
    if (t > 0) load(t - 1);
    for (int i = thread(); i < z.n; i += threads()) {
      const double u = u_of(t)[i];
      du[i] = u > 0 ? du[i] / u : 0;
    }
    __syncthreads();
  }

  // Whether `reference` is close enough to sweeps t and t - 1.
  __device__ bool fits(int64_t t, const double* reference) const {
    bool near = t > 0;
    for (int i = thread(); i < z.n && t > 0; i += threads())
      near = near && abs(stored(t)[i] - reference[i]) < kAbsorb &&
             abs(stored(t - 1)[i] - reference[i]) < kAbsorb;
    return __syncthreads_and(near);
  }

  // Fast sweeps on the kernel at hand, a new kernel when the scalings leave its range, log-sum-exp
  // where one sweep alone spans more.
  __device__ void unroll_log(int64_t sweeps) const {
    if (sweeps > 1) load(sweeps - 2);
    bool serves = fits(sweeps - 1, absorbed);
    for (int64_t t = sweeps - 1; t >= 0; --t) {
      if (!serves) {
        Base::fold();
        for (int i = thread(); i < z.n; i += threads()) du[i] *= u_of(t)[i];
        __syncthreads();
        if (!fits(t, stored(t))) {
          Base::slow_sweep(t);
          if (t == 0) return;
          absorb(t - 1);
          if (t > 1) serves = fits(t - 1, absorbed);
          continue;
        }
        absorb(t);
      }
      serves = Base::fast_sweep(t);
    }
    Base::fold();  // no sweep at all
  }

  __device__ void unroll(int64_t sweeps) const {
    load(sweeps - 2);
    __syncthreads();
    for (int64_t t = sweeps - 1; t >= 0; --t) Base::fast_sweep(t);
    for (int i = thread(); i < z.N; i += threads()) {
      if (G[i] > kKernelFloor) dlogG[i] += dG[i] * G[i];
    }
  }

  // f(t, i): each element of T.
  template <class F>
  __device__ void for_plan(double* u, F&& f) const {
    const int M = Base::M();
    const double *inner = Base::U_at(u, M - 1), *last = u + (M - 1) * z.K;
    Base::for_outer(M - 1, [&](int i, int k, int p) { f(inner[p] * last[k], i); });
  }

  // g d value: d/dG and d/du of T's factors, and T itself in dlogG.
  __device__ void seed(double* u) const {
    const int M = Base::M(), K = z.K;
    if (z.log) {
      for (int i = thread(); i < z.n; i += threads())
        log_u[i] = z.epsilon * Base::log_scaling(u, i);
      __syncthreads();
    }
    for_plan(u, [&](double scale, int i) {
      const double t = scale * G[i];
      double slope;  // d value / d T
      if (z.log)
        slope = Base::joint(i, 0, log_u, -1) + z.epsilon * (1 - gradients.entropy_shift);
      else
        slope = Base::joint(i, 1, nullptr, -1) +
                gradients.entropy_weight *
                    (log(max(t, kPlanFloor)) - gradients.entropy_shift + (t >= kPlanFloor ? 1 : 0));
      dG[i] = g * slope * scale;
      dlogG[i] = g * slope * G[i];
    });
    __syncthreads();
    const double* current = dlogG;
#pragma unroll
    for (int m = M - 1; m > 0; --m) {
      double *du_m = du + m * K, *below = m > 1 ? H + Base::level(m - 1) : du;
      Base::rows_dot(Base::U_at(u, m), current, m, [&](int k, double sum) { du_m[k] = sum; });
      Base::contract(u + m * K, current, m, [&](int p, double sum) { below[p] = sum; });
      current = below;
      __syncthreads();
    }
    // C = -epsilon log G
    for_plan(u, [&](double scale, int i) { dlogG[i] = -z.epsilon * g * (scale * G[i]); });
    __syncthreads();
  }

  __device__ void envelope(double* u) const {
    for_plan(u, [&](double scale, int i) { dlogG[i] = g * (scale * G[i]); });
    for (int m = thread() / 32; m < Base::M(); m += threads() / 32) {
      double mean = 0, mass = 0;
      for (int k = thread() % 32; k < z.K; k += 32) {
        const int i = m * z.K + k;
        mean += marginal[i] * Base::log_scaling(u, i);
        mass += marginal[i];
      }
      mean = warp_sum(mean);
      mass = warp_sum(mass);
      for (int k = thread() % 32; k < z.K; k += 32) {
        const int i = m * z.K + k;
        if (u[i] > 0)
          da[i] = g * z.epsilon * (Base::log_scaling(u, i) - (mass > 0 ? mean / mass : 0));
      }
    }
  }

  __device__ void run() const {
    const int64_t sweeps = int64_t(gradients.report[2]);
    // The last iterate on a kernel of its own.
    if (z.log && sweeps > 0) {
      for (int i = thread(); i < z.n; i += threads()) absorbed[i] = stored(sweeps - 1)[i];
      __syncthreads();
    }
    load(sweeps - 1);
    Base::build_kernel();
    __syncthreads();
    double* const u = u_of(sweeps - 1);
    for (int m = 1; m < Base::M() - 1; ++m) {
      Base::extend(u, m);
      __syncthreads();
    }
    if (gradients.envelope) {
      envelope(u);
    } else {
      seed(u);
      if (z.log)
        unroll_log(sweeps);
      else
        unroll(sweeps);
    }
    __syncthreads();
    add_gradients();
  }

  __device__ void add_gradients() const {
    const int M = Base::M(), K = z.K;
    if (gradients.dcost) {
      const double scale = gradients.envelope ? 1 : -1 / z.epsilon;
      // Rows of lanes of their own for every digit of modality j: two in a half-warp, mostly, whose
      // reads are in different banks. No warp has two pairs at once.
      int width = 1;
      while (width < K) width *= 2;
      const int lanes = (K * width + 31) / 32 * 32;
      int at = thread();
      for (int i = 0, pair = 0; i < M; ++i)
        for (int j = i + 1; j < M; ++j, ++pair)
          for (; at < (pair + 1) * lanes; at += threads()) {
            const int a = at % width, b = (at - pair * lanes) / width;
            const double sum = pair_sum(i, j, min(a, K - 1), min(b, K - 1));
            // scattered: a few numbers, once; their neighbours in memory are in other rows of lanes
            if (a < K && b < K) gradients.dcost[(pair * K + a) * K + b] += real(scale * sum);
          }
    }
    if (gradients.dmarginals)
      for (int i = thread(); i < z.n; i += threads())
        if (!(z.log && marginal[i] == 0)) gradients.dmarginals[i] += real(da[i]);
  }

  // The sum of dlogG over the elements with digits a and b of modalities i < j.
  __device__ double pair_sum(int i, int j, int a, int b) const {
    const int run = Base::power(i), middle = Base::power(j - i - 1);
    const int high = Base::power(Base::M() - 1 - j), step = Base::power(j);
    // Where all lanes would begin at multiples of a power of two, each begins elsewhere.
    const int first_l = middle > 1 ? b : 0;
    const int first_e = run % 2 == 0 ? (a + b * min(run / z.K, z.K)) % run : 0;
    double sum = 0;
    for (int h = 0; h < high; ++h)
      for (int n = 0, l = first_l; n < middle; ++n, l = l + 1 < middle ? l + 1 : 0) {
        const double* const from = dlogG + (h * z.K + b) * step + (l * z.K + a) * run;
#pragma unroll 4
        for (int m = 0, e = first_e; m < run; ++m, e = e + 1 < run ? e + 1 : 0) sum += from[e];
      }
    return sum;
  }
};

template <int kM, bool kShared>
__global__ void __launch_bounds__(max_threads(kShared), 1)
    backward_kernel(const __grid_constant__ Problem z,
                    const __grid_constant__ Gradients gradients) {
  DYNAMIC_SHARED(double, shared);
  const Backward<kM> solver(z, gradients, kShared ? shared : z.scratch);
  solver.run();
}

}  // namespace

void sinkhorn_backward(const Cuda& be, const SinkhornShape& s, In cost, In marginals,
                       std::span<const double> scalings, In report, In dvalue, InOut dcost,
                       InOut dmarginals, Scratch scratch) {
  check_sinkhorn_sizes(s);
  check_sinkhorn(s, cost, marginals, std::ssize(scalings), report, dvalue, scratch,
                 sinkhorn_scratch_bytes(be, s));
  check_sinkhorn_gradients(cost, marginals, dcost, dmarginals);
  if (dcost.empty() && dmarginals.empty()) return;
  const SinkhornOptions& o = s.options;
  const Problem z = make_problem(s, cost, marginals, scratch);
  const Gradients gradients{o.gradient == OtGradient::envelope,
                            o.log_domain ? z.epsilon : o.epsilon,
                            o.entropy == OtEntropy::log_minus_one ? 1.0 : 0.0,
                            scalings.data(),
                            report.data(),
                            dvalue.data(),
                            pointer(dcost),
                            pointer(dmarginals)};
  const bool shared = z.scratch == nullptr;
  const auto kernel = z.M == 3 ? shared ? backward_kernel<3, true> : backward_kernel<3, false>
                      : shared ? backward_kernel<0, true>
                               : backward_kernel<0, false>;
  // At most: the adjoints of two contractions, with the elements of dG.
  note_flops(kDouble * 12 * double(z.N + chain_size(s)) * double(o.max_sweeps));
  launch(be, kernel, 1, unsigned(block_threads(s)), shared ? memory_bytes(s) : 0, z, gradients);
}

}  // namespace decalign::inline DECALIGN_REAL
