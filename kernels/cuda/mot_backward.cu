#include "kernels/cuda/mot_launch.h"
#include "kernels/cuda/mot_newton.h"
#include "kernels/cuda/mot_unroll.h"
#include "kernels/cuda/mot_wide.h"
#include "kernels/mot.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace mot_block;

struct Gradients {
  const real *cost, *marginals;
  const double* state;
  const real *report, *dvalue, *dpairs;
  real *dcost, *dmarginals, *depsilon;
};

/// Subtracts from da, of every modality, its mean under the marginal. Barriers.
template <class S>
__device__ void shift_to_mean_zero(const S& s) {
  const int K = s.z.K;
  s.for_rows(s.z.M, K, true, [&](const Row& row) {
    double mean = 0, mass = 0;
    for (int k = row.lane; k < K && row.inside; k += row.lanes) {
      mean += s.a[row.index * K + k] * s.da[row.index * K + k];
      mass += s.a[row.index * K + k];
    }
    mean = row.sum(mean), mass = row.sum(mass);
    for (int k = row.lane; k < K && row.inside && mass > 0; k += row.lanes)
      s.da[row.index * K + k] -= mean / mass;
  });
  __syncthreads();
}

/// The plan at hand is taken for the optimum. Fills dcost, da in units of epsilon; returns the
/// value in the same. Barriers.
template <class S>
__device__ double converged(S& s, double g) {
  modality_sums(s, s.plan, s.reached);
  s.for_each(s.z.c, [&](int i) { s.dcost[i] = g * s.plan[i]; });
  s.for_each(s.z.n, [&](int i) { s.da[i] = s.a[i] > 0 ? g * s.phi[i] : 0; });
  __syncthreads();
  for (int round = s.D != nullptr ? 0 : 2; round < 2; ++round) {
    s.tilt_plan(round == 0 ? nullptr : s.lambda);
    s.for_each(s.z.c, [&](int i) { s.dcost[i] += round == 0 ? -s.tilted[i] : s.tilted[i]; });
    if (round == 1) {
      s.for_each(s.z.n, [&](int i) { s.da[i] += s.a[i] > 0 ? s.lambda[i] : 0; });
      break;
    }
    modality_sums(s, s.tilted, s.dphi);
    s.D = nullptr;
    solve_hessian(s, 0, s.dphi, s.lambda);
  }
  __syncthreads();
  shift_to_mean_zero(s);
  return s.pairing(s.z.primal ? s.reached : s.a) - s.mass();
}

/// dcost, da and the value, all in units of epsilon, to where they go. Barriers.
template <class S>
__device__ void give(const S& s, const Gradients& x, int64_t at, double dvalue, double value) {
  const Sizes& z = s.z;
  double inner = 0;
  s.for_each(z.c, [&](int i) {
    const double d = s.dcost[i];
    inner += d * (double(s.cost[i]) * s.scale);
    if (x.dcost != nullptr) x.dcost[at * z.c + i] += real(d / s.epsilon);
  });
  inner = s.total(inner);
  s.for_each(z.n, [&](int i) {
    if (x.dmarginals != nullptr && s.a[i] > 0) x.dmarginals[at * z.n + i] += real(s.da[i]);
  });
  // Value and plan depend on C / epsilon, the value in proportion to epsilon.
  if (x.depsilon != nullptr && s.thread() == 0)
    x.depsilon[at] += real(dvalue * value - inner / s.epsilon);
  __syncthreads();
}

template <class S, bool kUnrolled>
__device__ void back(S& s, const Gradients& x, int64_t at) {
  const Sizes& z = s.z;
  s.read(x.cost + at * z.c, x.marginals + at * z.n);
  s.D = x.dpairs != nullptr ? x.dpairs + at * z.c : nullptr;
  const double dvalue = x.dvalue != nullptr ? double(x.dvalue[at]) : 0, g = s.epsilon * dvalue;
  const double* const state = x.state + at * z.state;
  const int64_t sweeps = int64_t(x.report[4 * at + 2]);
  if constexpr (kUnrolled) {
    give(s, x, at, dvalue, unrolled(s, state, sweeps, g));
  } else {
    if (sweeps > 0) load_state(s, state, 0, s.z.M);
    s.prepare();
    s.make_plan();
    give(s, x, at, dvalue, converged(s, g));
  }
}

// After wide_plan.
__global__ void __launch_bounds__(kThreads, 1)
    converged_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w,
                     const __grid_constant__ Gradients x) {
  Slot s(z, w, int(blockIdx.x));
  s.resume();
  s.D = x.dpairs != nullptr ? x.dpairs + s.problem * z.c : nullptr;
  const double dvalue = x.dvalue != nullptr ? double(x.dvalue[s.problem]) : 0;
  give<Paired>(s, x, s.problem, dvalue, converged<Paired>(s, s.epsilon * dvalue));
}

template <class S, bool kUnrolled, bool kShared>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Gradients x) {
  DYNAMIC_SHARED(double, shared);
  S s(z, kShared ? shared : z.scratch + blockIdx.x * z.each);
  for (int64_t i = blockIdx.x; i < z.batch; i += gridDim.x) back<S, kUnrolled>(s, x, i);
}

template <class S>
auto kernel_of(bool unrolled, bool shared) {
  return unrolled ? shared ? backward_kernel<S, true, true> : backward_kernel<S, true, false>
         : shared ? backward_kernel<S, false, true>
                  : backward_kernel<S, false, false>;
}

}  // namespace

void mot_backward(const Cuda& be, const MotShape& s, In cost, In marginals,
                  std::span<const double> state, In report, In dvalue, In dpairs, InOut dcost,
                  InOut dmarginals, InOut depsilon, Scratch scratch) {
  check_mot(s, cost, marginals, std::ssize(state), report, scratch, mot_scratch_bytes(be, s));
  check_mot_backward(s, cost, marginals, dvalue, dpairs, dcost, dmarginals, depsilon);
  const bool all = s.options.gradient == MotGradient::unrolled;
  const Gradients x{cost.data(),    marginals.data(),    state.data(),
                    report.data(),  pointer(dvalue),     pointer(dpairs),
                    pointer(dcost), pointer(dmarginals), pointer(depsilon)};
  const Sizes z = make_sizes(s, all ? Direction::unrolled : Direction::converged);
  if (z.wide) {
    const Wide whole{x.cost, x.marginals, nullptr, nullptr, 0};
    return for_parts(be, s, z, whole, scratch, [&](const Sizes& in, const Wide& w, int problems) {
      wide_plan(be, in, w, x.state, x.report, problems);
      launch(be, converged_kernel, unsigned(problems), kThreads, 0, in, w, x);
    });
  }
  const auto kernel = [&](bool shared) {
    switch (sums_of(s)) {
      case Sums::tree:
        return kernel_of<Tree>(all, shared);
      case Sums::paired:
        return kernel_of<Paired>(all, shared);
      case Sums::stream:
        break;
    }
    return kernel_of<Stream>(all, shared);
  };
  launch_problems(be, s, z, scratch, kernel, x);
}

}  // namespace decalign::inline DECALIGN_REAL
