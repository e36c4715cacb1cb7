// What sinkhorn asks of its arguments, on every backend, and the constants of its definition.
#pragma once

#include <cmath>

#include "kernels/sinkhorn.h"

namespace decalign::inline DECALIGN_REAL {

namespace transport {
constexpr double kGuard = 1e-8, kKernelFloor = 1e-30, kPlanFloor = 1e-8, kEpsilonFloor = 1e-6;
constexpr double kAbsorb = 30;     // |log| of a scaling at which it is absorbed into the kernel
constexpr double kUsable = 1e100;  // a scaling beyond it, or below its inverse, is not trusted
constexpr double kLargestLog =
    500;  // of an absorbed element of G; beyond, its mass is below 1e-200
}  // namespace transport

/// Elements of the joint arrays. Throws std::invalid_argument unless 2 <= M, 1 <= K, K^M <= 2^24.
inline int64_t check_sinkhorn_sizes(const SinkhornShape& s) {
  expect(s.modalities >= 2 && s.components >= 1, "sinkhorn: sizes out of range");
  int64_t n = 1;
  for (int64_t m = 0; m < s.modalities && s.components > 1; ++m) {
    n *= s.components;
    expect(n <= int64_t(1) << 24,
           "sinkhorn: components^modalities is too large for the dense form");
  }
  return n;
}

inline void check_sinkhorn(const SinkhornShape& s, In cost, In marginals, int64_t scalings,
                           In report, In value, Scratch scratch, size_t scratch_bytes) {
  const int64_t M = s.modalities, K = s.components;
  expect(std::isfinite(s.options.epsilon), "sinkhorn: epsilon is not finite");
  expect(s.options.max_sweeps >= 0 && s.options.tolerance >= 0, "sinkhorn: option out of range");
  expect(std::ssize(cost) == M * (M - 1) / 2 * K * K, "sinkhorn: cost must be [pairs, K, K]");
  expect(std::ssize(marginals) == M * K, "sinkhorn: marginals must be [M, K]");
  expect(scalings == s.options.max_sweeps * M * K, "sinkhorn: scalings must be [max_sweeps, M, K]");
  expect(report.size() == 3, "sinkhorn: report must have three elements");
  expect(value.size() == 1, "sinkhorn: value must have one element");
  expect(scratch.size() >= scratch_bytes, "sinkhorn: scratch too small");
}

inline void check_sinkhorn_gradients(In cost, In marginals, InOut dcost, InOut dmarginals) {
  expect(dcost.empty() || dcost.size() == cost.size(), "sinkhorn: dcost must have cost's size");
  expect(dmarginals.empty() || dmarginals.size() == marginals.size(),
         "sinkhorn: dmarginals must have the size of marginals");
}

}  // namespace decalign::inline DECALIGN_REAL
