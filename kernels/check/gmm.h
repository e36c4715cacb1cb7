// What gmm asks of its arguments, on every backend.
#pragma once

#include "kernels/gmm.h"

namespace decalign::inline DECALIGN_REAL {

/// Elements of a component's covariance.
inline int64_t gmm_covariance_size(const GmmShape& s) {
  return s.options.covariance == GmmCovariance::full ? s.width * s.width : s.width;
}

inline void check_gmm(const GmmShape& s, In x, std::span<const int32_t> choice) {
  expect(s.modalities >= 0 && s.batch >= 1 && s.width >= 0 && s.options.components >= 1 &&
             s.options.iterations >= 0,
         "gmm: sizes out of range");
  expect(s.options.variance_floor > 0, "gmm: variance_floor must be positive");
  expect(s.options.ridge >= 0, "gmm: ridge must not be negative");
  expect(std::ssize(x) == s.modalities * s.batch * s.width, "gmm: x must be [M, B, d]");
  expect(std::ssize(choice) == s.modalities * s.options.components, "gmm: choice must be [M, K]");
}

inline void check_gmm_forward(const GmmShape& s, In x, Out weights, Out means, Out covariances,
                              Out posteriors, Out marginals, Out log_likelihood,
                              std::span<const int32_t> choice, Scratch state, size_t state_bytes) {
  const int64_t M = s.modalities, K = s.options.components;
  const auto fits = [](In v, int64_t size) { return v.empty() || std::ssize(v) == size; };
  check_gmm(s, x, choice);
  expect(std::ssize(weights) == M * K, "gmm: weights must be [M, K]");
  expect(std::ssize(means) == M * K * s.width, "gmm: means must be [M, K, d]");
  expect(std::ssize(covariances) == M * K * gmm_covariance_size(s),
         "gmm: covariances must be [M, K, d], full ones [M, K, d, d]");
  expect(fits(posteriors, M * s.batch * K), "gmm: posteriors must be [M, B, K]");
  expect(fits(marginals, M * K), "gmm: marginals must be [M, K]");
  expect(fits(log_likelihood, M), "gmm: log_likelihood must be [M]");
  expect(state.size() >= state_bytes, "gmm: state too small");
}

inline void check_gmm_backward(const GmmShape& s, In x, std::span<const int32_t> choice,
                               In dweights, In dmeans, In dcovariances, In dposteriors,
                               In dmarginals, In dlog_likelihood, InOut dx, Scratch state,
                               size_t state_bytes) {
  const int64_t M = s.modalities, K = s.options.components;
  const auto fits = [](In g, int64_t size) { return g.empty() || std::ssize(g) == size; };
  check_gmm(s, x, choice);
  expect(fits(dweights, M * K), "gmm: dweights must be [M, K]");
  expect(fits(dmeans, M * K * s.width), "gmm: dmeans must be [M, K, d]");
  expect(fits(dcovariances, M * K * gmm_covariance_size(s)),
         "gmm: dcovariances must be [M, K, d], full ones [M, K, d, d]");
  expect(fits(dposteriors, M * s.batch * K), "gmm: dposteriors must be [M, B, K]");
  expect(fits(dmarginals, M * K), "gmm: dmarginals must be [M, K]");
  expect(fits(dlog_likelihood, M), "gmm: dlog_likelihood must be [M]");
  expect(dx.empty() || dx.size() == x.size(), "gmm: dx must have the size of x");
  expect(state.size() >= state_bytes, "gmm: state too small");
}

}  // namespace decalign::inline DECALIGN_REAL
