#include "kernels/sqrtm.h"

#include "bench/runs/problem.h"
#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL::bench {

/// a [n, d, d], droot [n, d, d]; inverse -> root, da, and with `inverse` the inverse root
void run_sqrtm(Problem& p) {
  const int64_t n = p.size("a", 0), d = p.size("a", 2);
  const SqrtmShape s{n, d};
  const In a = p.input("a"), droot = p.input("droot");
  const Out root = p.output("root", {n, d, d}), da = p.output("da", {n, d, d});
  const Out inverse = p.option("inverse", false) ? p.output("inverse", {n, d, d}) : Out();
  const auto kept = p.memory<double>(s.kept_size());
  const Scratch scratch =
      p.scratch(p.device().run([&](const auto& be) { return sqrtm_scratch_bytes(be, s); }));
  p.time([&](const auto& be) {
    sqrtm_forward(be, s, a, root, inverse, kept, scratch);
    fill(be, 0, da);
    sqrtm_backward(be, s, kept, droot, {}, da, scratch);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::bench
