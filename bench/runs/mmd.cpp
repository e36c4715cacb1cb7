#include "bench/runs/problem.h"
#include "kernels/mmd_two_sample.h"

namespace decalign::inline DECALIGN_REAL::bench {

/// x [n, d], y [m, d], bandwidths [L], weights [L] -> value, dx, dy
void run_mmd(Problem& p) {
  const int64_t n = p.size("x", 0), m = p.size("y", 0), d = p.size("x", 1),
                L = p.size("bandwidths", 0);
  const MmdTwoSampleShape s{
      n,
      m,
      d,
      L,
      p.option("unbiased", false),
      p.option("products", false) ? MmdArithmetic::products : MmdArithmetic::differences};
  const In x = p.input("x"), y = p.input("y"), b = p.input("bandwidths"), w = p.input("weights");
  const Out value = p.output("value", {1}), dx = p.output("dx", {n, d}),
            dy = p.output("dy", {m, d});
  const Scratch scratch = p.scratch(
      p.device().run([&](const auto& be) { return mmd_two_sample_scratch_bytes(be, s); }));
  p.time([&](const auto& be) {
    mmd_two_sample_forward(be, s, x, y, b, w, value, dx, dy, {}, scratch);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::bench
