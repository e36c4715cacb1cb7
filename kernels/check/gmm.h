// What gmm asks of its arguments, on every backend.
#pragma once

#include "kernels/gmm.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_gmm(const GmmShape& s, In x, std::span<const int32_t> choice) {
  expect(s.modalities >= 0 && s.batch >= 1 && s.width >= 0 && s.options.components >= 1 &&
             s.options.iterations >= 0,
         "gmm: sizes out of range");
  expect(s.options.variance_floor > 0, "gmm: variance_floor must be positive");
  expect(std::ssize(x) == s.modalities * s.batch * s.width, "gmm: x must be [M, B, d]");
  expect(std::ssize(choice) == s.modalities * s.options.components, "gmm: choice must be [M, K]");
}

inline void check_gmm_forward(const GmmShape& s, In x, Out weights, Out means, Out variances,
                              Out posteriors, Out marginals, std::span<const int32_t> choice,
                              Scratch state, size_t state_bytes) {
  const int64_t M = s.modalities, K = s.options.components;
  check_gmm(s, x, choice);
  expect(std::ssize(weights) == M * K, "gmm: weights must be [M, K]");
  expect(std::ssize(means) == M * K * s.width && variances.size() == means.size(),
         "gmm: means and variances must be [M, K, d]");
  expect(std::ssize(posteriors) == M * s.batch * K, "gmm: posteriors must be [M, B, K]");
  expect(marginals.size() == weights.size(), "gmm: marginals must be [M, K]");
  expect(state.size() >= state_bytes, "gmm: state too small");
}

inline void check_gmm_backward(const GmmShape& s, In x, std::span<const int32_t> choice,
                               In dweights, In dmeans, In dvariances, In dposteriors, In dmarginals,
                               InOut dx, Scratch state, size_t state_bytes) {
  const int64_t M = s.modalities, K = s.options.components;
  const auto fits = [](In g, int64_t size) { return g.empty() || std::ssize(g) == size; };
  check_gmm(s, x, choice);
  expect(fits(dweights, M * K), "gmm: dweights must be [M, K]");
  expect(fits(dmeans, M * K * s.width), "gmm: dmeans must be [M, K, d]");
  expect(fits(dvariances, M * K * s.width), "gmm: dvariances must be [M, K, d]");
  expect(fits(dposteriors, M * s.batch * K), "gmm: dposteriors must be [M, B, K]");
  expect(fits(dmarginals, M * K), "gmm: dmarginals must be [M, K]");
  expect(dx.empty() || dx.size() == x.size(), "gmm: dx must have the size of x");
  expect(state.size() >= state_bytes, "gmm: state too small");
}

}  // namespace decalign::inline DECALIGN_REAL
