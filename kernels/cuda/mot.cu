#include "kernels/cuda/mot_launch.h"
#include "kernels/cuda/mot_newton.h"
#include "kernels/cuda/mot_wide.h"
#include "kernels/mot.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace mot_block;

struct Results {
  const real *cost, *marginals;
  double* state;
  real *value, *pairs, *report;
};

/// Value, report and, of the last sweep alone, the state.
template <class S>
__device__ void give(const S& s, const Results& to, int64_t i, const Outcome& r, int64_t sweeps) {
  const double value = s.z.primal ? s.pairing(s.reached) - r.mass : r.dual;
  if (s.thread() == 0) {
    to.value[i] = real(s.epsilon * value);
    to.report[4 * i] = real(r.mass);
    to.report[4 * i + 1] = real(r.error);
    to.report[4 * i + 2] = real(sweeps);
    to.report[4 * i + 3] = real(r.newton_steps);
  }
  if (!s.z.unrolled) s.for_each(s.z.n, [&](int e) { to.state[i * s.z.state + e] = s.q[e]; });
}

template <class S>
__device__ void solve(S& s, const Results& to, int64_t i) {
  const Sizes& z = s.z;
  double* const state = to.state + i * z.state;
  s.read(to.cost + i * z.c, to.marginals + i * z.n);
  s.heat = z.heat;
  int64_t sweeps = 0;
  for (int64_t h = z.halvings; h >= 0; --h) {
    const int64_t left = z.max_sweeps - sweeps;
    sweeps += s.sweep(h > 0 ? min(int64_t(3), left) : left, h > 0 ? 0 : z.tolerance,
                      z.unrolled ? state : nullptr);
    if (h > 0) s.halve();
  }
  give(s, to, i, finish(s, s.start ? 0 : z.newton_steps), sweeps);
  if (to.pairs != nullptr) s.for_each(z.c, [&](int e) { to.pairs[i * z.c + e] = real(s.plan[e]); });
  __syncthreads();
}

template <class S, bool kShared>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Results to) {
  DYNAMIC_SHARED(double, shared);
  S s(z, kShared ? shared : z.scratch + blockIdx.x * z.each);
  for (int64_t i = blockIdx.x; i < z.batch; i += gridDim.x) solve(s, to, i);
}

// After wide_sweeps.
__global__ void __launch_bounds__(kThreads, 1)
    finish_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w,
                  const __grid_constant__ Results to) {
  Slot s(z, w, int(blockIdx.x));
  s.resume();
  give<Paired>(s, to, s.problem, look_at_plan<Paired>(s), s.control.updates / 3);
}

template <class S>
auto kernel_of(bool shared) {
  return shared ? forward_kernel<S, true> : forward_kernel<S, false>;
}

}  // namespace

size_t mot_scratch_bytes(const Cuda& be, const MotShape& s) {
  check_mot_shape(s);
  const Direction back =
      s.options.gradient == MotGradient::unrolled ? Direction::unrolled : Direction::converged;
  size_t bytes = 0;
  for (const Direction direction : {Direction::forward, back}) {
    const size_t each = size_t(make_sizes(s, direction).each) * sizeof(double);
    if (each > kSharedBytes) bytes = std::max(bytes, each * size_t(blocks(be, s, false)));
  }
  return bytes;
}

void mot_forward(const Cuda& be, const MotShape& s, In cost, In marginals, std::span<double> state,
                 Out value, Out pairs, Out report, Scratch scratch) {
  check_mot(s, cost, marginals, std::ssize(state), report, scratch, mot_scratch_bytes(be, s));
  check_mot_forward(s, cost, value, pairs);
  const Results to{cost.data(),  marginals.data(), state.data(),
                   value.data(), pointer(pairs),   report.data()};
  const Sizes z = make_sizes(s, Direction::forward);
  if (z.wide) {
    const Wide all{to.cost, to.marginals, z.unrolled ? to.state : nullptr, to.pairs, 0};
    return for_parts(be, s, z, all, scratch, [&](const Sizes& in, const Wide& part, int problems) {
      wide_sweeps(be, in, part, problems);
      launch(be, finish_kernel, unsigned(problems), kThreads, 0, in, part, to);
    });
  }
  const auto kernel = [&](bool shared) {
    switch (sums_of(s)) {
      case Sums::tree:
        return kernel_of<Tree>(shared);
      case Sums::paired:
        return kernel_of<Paired>(shared);
      case Sums::stream:
        break;
    }
    return kernel_of<Stream>(shared);
  };
  launch_problems(be, s, z, scratch, kernel, to);
}

}  // namespace decalign::inline DECALIGN_REAL
