#include "kernels/gmm.h"

#include "bench/runs/problem.h"

namespace decalign::inline DECALIGN_REAL::bench {

/// x [N, d]; components, full, direct, iterations -> weights, means, covariances
void run_gmm(Problem& p) {
  const int64_t N = p.size("x", 0), d = p.size("x", 1), K = p.option("components", int64_t(8));
  GmmShape s{1, N, d, {}};
  s.options.components = K;
  s.options.iterations = p.option("iterations", int64_t(1));
  s.options.covariance = p.option("full", false) ? GmmCovariance::full : GmmCovariance::diagonal;
  s.options.arithmetic =
      p.option("direct", false) ? GmmArithmetic::direct : GmmArithmetic::products;
  const int64_t spread = s.options.covariance == GmmCovariance::full ? d * d : d;
  const In x = p.input("x");
  const Out weights = p.output("weights", {K}), means = p.output("means", {K, d}),
            covariances = p.output("covariances", {K, spread});
  const auto choice = p.memory<int32_t>(K);
  const Scratch state =
      p.scratch(p.device().run([&](const auto& be) { return gmm_state_bytes(be, s); }));
  p.time([&](const auto& be) {
    gmm_forward(be, s, x, weights, means, covariances, {}, {}, {}, choice, state);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::bench
