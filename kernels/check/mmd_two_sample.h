// What mmd_two_sample asks of its arguments, on every backend.
#pragma once

#include <limits>

#include "kernels/check/both.h"
#include "kernels/mmd_two_sample.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_two_samples(const MmdTwoSampleShape& s, In x, In y, Scratch scratch,
                              size_t scratch_bytes) {
  expect(s.x_rows >= 0 && s.y_rows >= 0 && s.width >= 0, "mmd_two_sample: sizes out of range");
  expect(std::ssize(x) == s.x_rows * s.width, "mmd_two_sample: x must be [n, d]");
  expect(std::ssize(y) == s.y_rows * s.width, "mmd_two_sample: y must be [m, d]");
  expect(scratch.size() >= scratch_bytes, "mmd_two_sample: scratch too small");
}

inline void check_mmd_two_sample(const MmdTwoSampleShape& s, In x, In y, In bandwidths, In weights,
                                 Out value, Out dx, Out dy, Out dbandwidths, Scratch scratch,
                                 size_t scratch_bytes) {
  check_two_samples(s, x, y, scratch, scratch_bytes);
  expect(s.bandwidths >= 1 && s.bandwidths <= kMmdBandwidths, "mmd_two_sample: 1 to 16 bandwidths");
  expect(!s.unbiased || (s.x_rows > 1 && s.y_rows > 1),
         "mmd_two_sample: the unbiased form needs two rows of each sample");
  expect(std::ssize(bandwidths) == s.bandwidths, "mmd_two_sample: bandwidths must be [L]");
  expect(std::ssize(weights) == s.bandwidths, "mmd_two_sample: weights must be [L]");
  expect(value.size() == 1, "mmd_two_sample: value must have one element");
  expect(dx.empty() || dx.size() == x.size(), "mmd_two_sample: dx must have the size of x");
  expect(dy.empty() || dy.size() == y.size(), "mmd_two_sample: dy must have the size of y");
  expect(dbandwidths.empty() || dbandwidths.size() == bandwidths.size(),
         "mmd_two_sample: dbandwidths must be [L]");
}

inline void check_mmd_median(const MmdTwoSampleShape& s, In x, In y, Out bandwidth, Scratch scratch,
                             size_t scratch_bytes) {
  check_two_samples(s, x, y, scratch, scratch_bytes);
  expect(bandwidth.size() == 1, "mmd_two_sample: bandwidth must have one element");
}

/// Factors of an unordered pair of rows in the value: within x, within y, between them; and of the
/// diagonal's sum of weights.
struct TwoSampleFactors {
  double x, y, between, diagonal;
};
inline TwoSampleFactors two_sample_factors(const MmdTwoSampleShape& s) {
  if (s.x_rows == 0 || s.y_rows == 0) return {0, 0, 0, 0};
  const double n = double(s.x_rows), m = double(s.y_rows);
  if (s.unbiased) return {2 / (n * (n - 1)), 2 / (m * (m - 1)), -2 / (n * m), 0};
  return {2 / (n * n), 2 / (m * m), -2 / (n * m), 1 / n + 1 / m};
}

/// The kernel of bandwidth b is the square of the one of `before`.
inline constexpr real kHalfRounding = 2 * std::numeric_limits<real>::epsilon();
DECALIGN_BOTH inline bool is_half(real b, real before) {
  const real off = before - 2 * b, least = kHalfRounding * before;
  return off <= least && off >= -least;
}

}  // namespace decalign::inline DECALIGN_REAL
