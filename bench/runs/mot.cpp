#include "kernels/mot.h"

#include "bench/runs/problem.h"
#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL::bench {

/// cost [pairs, K, K], marginals [M, K]; epsilon, sweeps, unrolled, backward ->
/// value, dcost
void run_mot(Problem& p) {
  const int64_t pairs = p.size("cost", 0), K = p.size("cost", 1), M = p.size("marginals", 0);
  MotShape s{1, M, K};
  s.options.epsilon = p.option("epsilon", 0.1);
  s.options.max_sweeps = p.option("sweeps", int64_t(50));
  s.options.value = p.option("primal", false) ? MotValue::primal : MotValue::dual;
  s.options.gradient = p.option("unrolled", false) ? MotGradient::unrolled : MotGradient::converged;
  const bool backward = p.option("backward", true);
  const In cost = p.input("cost"), marginals = p.input("marginals");
  const auto state = p.memory<double>(mot_state_size(s));
  const Out value = p.output("value", {1}), report = p.memory<real>(4), one = p.memory<real>(1);
  const Out dcost = backward ? p.output("dcost", {pairs, K, K}) : Out();
  const Scratch scratch =
      p.scratch(p.device().run([&](const auto& be) { return mot_scratch_bytes(be, s); }));
  p.device().run([&](const auto& be) { fill(be, 1, one); });
  p.time([&](const auto& be) {
    mot_forward(be, s, cost, marginals, state, value, {}, report, scratch);
    if (!backward) return;
    fill(be, 0, dcost);
    mot_backward(be, s, cost, marginals, state, report, one, {}, dcost, {}, {}, scratch);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::bench
