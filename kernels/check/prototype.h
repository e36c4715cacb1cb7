// What prototype asks of its arguments, on every backend.
#pragma once

#include "kernels/prototype.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_prototype(const PrototypeShape& s, In x, In posteriors, In means, In variances,
                            In value, Scratch scratch, size_t scratch_bytes) {
  expect(s.modalities >= 0 && s.batch >= 0 && s.components >= 0 && s.width >= 0,
         "prototype: sizes out of range");
  expect(std::ssize(x) == s.modalities * s.batch * s.width, "prototype: x must be [M, B, d]");
  expect(std::ssize(posteriors) == s.modalities * s.batch * s.components,
         "prototype: posteriors must be [M, B, K]");
  const int64_t n = s.modalities * s.components * s.width;
  expect(std::ssize(means) == n, "prototype: means must be [M, K, d]");
  expect(std::ssize(variances) == n || (variances.empty() && !s.options.mahalanobis),
         "prototype: variances must be [M, K, d]");
  expect(value.size() == 1, "prototype: value must have one element");
  expect(scratch.size() >= scratch_bytes, "prototype: scratch too small");
}

inline void check_prototype_backward(const PrototypeShape& s, In x, In posteriors, In means,
                                     In variances, In dvalue, InOut dx, InOut dposteriors,
                                     InOut dmeans, InOut dvariances, Scratch scratch,
                                     size_t scratch_bytes) {
  check_prototype(s, x, posteriors, means, variances, dvalue, scratch, scratch_bytes);
  expect(dx.empty() || dx.size() == x.size(), "prototype: dx must have the size of x");
  expect(dposteriors.empty() || dposteriors.size() == posteriors.size(),
         "prototype: dposteriors must have the size of posteriors");
  expect(dmeans.empty() || dmeans.size() == means.size(),
         "prototype: dmeans must have the size of means");
  expect(dvariances.empty() || dvariances.size() == means.size(),
         "prototype: dvariances must have the size of variances");
}

// Factor of every (pair, sample) term.
inline double prototype_term_weight(const PrototypeShape& s) {
  if (s.modalities < 2 || s.batch == 0 || s.width == 0) return 0;
  double w = 1 / double(s.batch);
  if (s.options.feature == Reduction::mean) w /= double(s.width);
  if (s.options.pairs == Reduction::mean) w /= double(s.modalities * (s.modalities - 1));
  return w;
}

}  // namespace decalign::inline DECALIGN_REAL
