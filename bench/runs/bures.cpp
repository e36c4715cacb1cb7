#include "kernels/bures.h"

#include "bench/runs/problem.h"
#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL::bench {

/// covariances [2, K, d, d], matched in pairs, means 0; backward -> cost, dcovariances
void run_bures(Problem& p) {
  const int64_t K = p.size("covariances", 1), d = p.size("covariances", 2);
  const bool backward = p.option("backward", true);
  BuresShape s{2, K, d, d, {}};
  s.options.pairing = Pairing::matched;
  s.options.ridge = p.option("ridge", 0.0);
  const In spread = p.input("covariances");
  const Out means = p.memory<real>(2 * K * d), ones = p.memory<real>(K),
            cost = p.output("cost", {K});
  const Out kept = p.memory<real>(backward ? s.kept_size() : 0);
  const Out dspread = backward ? p.output("dcovariances", {2, K, d, d}) : Out();
  const Scratch scratch =
      p.scratch(p.device().run([&](const auto& be) { return bures_scratch_bytes(be, s); }));
  p.device().run([&](const auto& be) { fill(be, 0, means), fill(be, 1, ones); });
  p.time([&](const auto& be) {
    bures_forward(be, s, means, spread, cost, kept, scratch);
    if (!backward) return;
    fill(be, 0, dspread);
    bures_backward(be, s, means, spread, kept, ones, {}, dspread, scratch);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::bench
