#include "bench/runs/problem.h"
#include "kernels/fill.h"
#include "kernels/sample_moments.h"

namespace decalign::inline DECALIGN_REAL::bench {

/// x [N, d] -> mean, variance, skewness, or covariance (`what`: forward, backward, covariance);
/// backward: from ones for the three, on the forward pass's state -> dx
void run_moments(Problem& p) {
  const int64_t N = p.size("x", 0), d = p.size("x", 1);
  const std::string what = p.option("what", std::string("forward"));
  const SampleMomentsShape s{N, d, what == "covariance"};
  const In x = p.input("x");
  const auto state = p.memory<double>(sample_moments_state_size(s));
  const Scratch scratch = p.scratch(
      p.device().run([&](const auto& be) { return sample_moments_scratch_bytes(be, s); }));
  const auto statistics = [&](const auto& be, Out mean, Out variance, Out skewness,
                              Out covariance) {
    sample_moments_collect(be, s, x, state, scratch);
    sample_moments_forward(be, s, state, mean, variance, skewness, covariance);
  };
  if (what == "covariance") {
    const Out covariance = p.output("covariance", {d, d});
    return p.time([&](const auto& be) { statistics(be, {}, {}, {}, covariance); });
  }
  if (what == "forward") {
    const Out mean = p.output("mean", {d}), variance = p.output("variance", {d}),
              skewness = p.output("skewness", {d});
    return p.time([&](const auto& be) { statistics(be, mean, variance, skewness, {}); });
  }
  const Out dx = p.output("dx", {N, d}), ones = p.memory<real>(d);
  p.device().run([&](const auto& be) {
    statistics(be, {}, {}, {}, {});
    fill(be, 1, ones);
  });
  p.time([&](const auto& be) {
    sample_moments_backward(be, s, x, state, ones, ones, ones, {}, dx, scratch);
  });
  p.device().run([&](const auto& be) {  // once
    fill(be, 0, dx);
    sample_moments_backward(be, s, x, state, ones, ones, ones, {}, dx, scratch);
  });
  p.device().wait();
}

}  // namespace decalign::inline DECALIGN_REAL::bench
