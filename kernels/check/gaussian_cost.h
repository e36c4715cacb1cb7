// What gaussian_cost asks of its arguments, on every backend.
#pragma once

#include "kernels/gaussian_cost.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_gaussian_cost(const GaussianCostShape& s, In means, In variances, In cost) {
  expect(s.modalities >= 1 && s.components >= 0 && s.width >= 0,
         "gaussian_cost: sizes out of range");
  const int64_t n = s.modalities * s.components * s.width;
  expect(std::ssize(means) == n && std::ssize(variances) == n,
         "gaussian_cost: means and variances must be [M, K, d]");
  expect(std::ssize(cost) == s.modalities * (s.modalities - 1) / 2 * s.components * s.components,
         "gaussian_cost: cost must be [pairs, K, K]");
}

inline void check_gaussian_cost_backward(const GaussianCostShape& s, In means, In variances,
                                         In dcost, InOut dmeans, InOut dvariances) {
  check_gaussian_cost(s, means, variances, dcost);
  expect(dmeans.empty() || dmeans.size() == means.size(),
         "gaussian_cost: dmeans must have the size of means");
  expect(dvariances.empty() || dvariances.size() == variances.size(),
         "gaussian_cost: dvariances must have the size of variances");
}

}  // namespace decalign::inline DECALIGN_REAL
