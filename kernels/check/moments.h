// What moments asks of its arguments, on every backend, and the weights of its distances.
#pragma once

#include <utility>

#include "kernels/moments.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_moments(const MomentsShape& s, In z, In rest, In mean, In covariance, In skewness,
                          Scratch scratch, size_t scratch_bytes) {
  expect(s.modalities >= 0 && s.batch >= 0 && s.width >= 0, "moments: sizes out of range");
  const int64_t p = s.width;
  expect(std::ssize(z) == s.modalities * s.batch * p, "moments: z must be [M, B, p]");
  expect(rest.empty() || rest.size() == z.size(), "moments: rest must have the size of z");
  expect(std::ssize(mean) == s.modalities * p && std::ssize(skewness) == s.modalities * p,
         "moments: mean and skewness must be [M, p]");
  expect(std::ssize(covariance) == s.modalities * p * p, "moments: covariance must be [M, p, p]");
  expect(scratch.size() >= scratch_bytes, "moments: scratch too small");
}

inline void check_moments_forward(const MomentsShape& s, In z, In rest, Out mean, Out covariance,
                                  Out skewness, Out value, Scratch scratch, size_t scratch_bytes) {
  check_moments(s, z, rest, mean, covariance, skewness, scratch, scratch_bytes);
  expect(value.size() == 1, "moments: value must have one element");
}

inline void check_moments_backward(const MomentsShape& s, In z, In rest, In mean, In covariance,
                                   In skewness, In dvalue, InOut dz, InOut drest, Scratch scratch,
                                   size_t scratch_bytes) {
  check_moments(s, z, rest, mean, covariance, skewness, scratch, scratch_bytes);
  expect(dvalue.size() == 1, "moments: dvalue must have one element");
  expect(dz.empty() || dz.size() == z.size(), "moments: dz must have the size of z");
  expect(drest.empty() || drest.size() == dz.size(), "moments: drest must have the size of dz");
}

/// Factor of a pair's squared distance of vectors (first) and of covariances (second).
inline std::pair<double, double> moments_weights(const MomentsShape& s) {
  const double pairs = double(s.modalities * (s.modalities - 1) / 2);
  if (pairs == 0 || s.batch == 0 || s.width == 0) return {0, 0};
  if (s.reduction == Reduction::sum) return {0.5 / pairs, 0.5 / pairs};
  const double p = double(s.width);
  return {1 / (pairs * p), 1 / (pairs * p * p)};
}

}  // namespace decalign::inline DECALIGN_REAL
