// What sample_moments asks of its arguments, on every backend, and a column's way back.
#pragma once

#include <cmath>

#include "kernels/check/both.h"
#include "kernels/sample_moments.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_moments_state(const SampleMomentsShape& s, InMomentsState state) {
  expect(s.rows >= 0 && s.width >= 0, "sample_moments: sizes out of range");
  expect(s.correction >= 0, "sample_moments: correction must not be negative");
  expect(s.variance_floor >= 0 && std::isfinite(s.variance_floor),
         "sample_moments: variance_floor must not be negative");
  expect(std::ssize(state) == sample_moments_state_size(s),
         "sample_moments: state must have sample_moments_state_size elements");
}

inline void check_sample_moments_collect(const SampleMomentsShape& s, In x, InMomentsState state,
                                         Scratch scratch, size_t scratch_bytes) {
  check_moments_state(s, state);
  expect(std::ssize(x) == s.rows * s.width, "sample_moments: x must be [N, d]");
  expect(scratch.size() >= scratch_bytes, "sample_moments: scratch too small");
}

inline void check_sample_moments_statistics(const SampleMomentsShape& s, In mean, In variance,
                                            In skewness, In covariance) {
  for (In v : {mean, variance, skewness})
    expect(v.empty() || std::ssize(v) == s.width,
           "sample_moments: mean, variance and skewness must be [d]");
  expect(covariance.empty() || (s.covariance && std::ssize(covariance) == s.width * s.width),
         "sample_moments: covariance must be [d, d], of a state that has it");
}

inline void check_sample_moments_backward(const SampleMomentsShape& s, In x, InMomentsState state,
                                          In dmean, In dvariance, In dskewness, In dcovariance,
                                          InOut dx, Scratch scratch, size_t scratch_bytes) {
  check_sample_moments_collect(s, x, state, scratch, scratch_bytes);
  check_sample_moments_statistics(s, dmean, dvariance, dskewness, dcovariance);
  expect(dx.empty() || dx.size() == x.size(), "sample_moments: dx must have the size of x");
}

/// max(n - correction, 1)
DECALIGN_BOTH inline double moments_divisor(double n, int64_t correction) {
  const double d = n - double(correction);
  return d > 1 ? d : 1;
}

DECALIGN_BOTH inline double skewness_of(double n, double m2, double m3, double floor) {
  const double variance = m2 / n, v = variance < floor ? floor : variance;
  return v == 0 ? 0 : m3 / n / (v * sqrt(v));
}

/// A column's gradient is shift + y (slope + curve y).
struct ColumnPull {
  double shift, slope, curve;
};
DECALIGN_BOTH inline ColumnPull column_pull(double n, double m2, double m3, double divisor,
                                            double floor, double dmean, double dvariance,
                                            double dskewness) {
  ColumnPull p{dmean / n, 2 * dvariance / divisor, 0};
  const double variance = m2 / n, v = variance < floor ? floor : variance;
  if (v == 0) return p;
  p.curve = 3 * dskewness / (n * v * sqrt(v));
  p.shift -= p.curve * variance;
  if (!(variance < floor)) p.slope -= 3 * dskewness / (n * v) * skewness_of(n, m2, m3, floor);
  return p;
}

/// One column of `other` merged into a state of `a` rows.
DECALIGN_BOTH inline void merge_column(double a, double b, double mean2, double other2,
                                       double other3, double& mean, double& m2, double& m3) {
  const double n = a + b, e = mean2 - mean;
  m3 += other3 + e * (e * e * (a * b * (a - b) / (n * n)) + 3 * ((a * other2 - b * m2) / n));
  m2 += other2 + e * e * (a * b / n);
  mean += e * (b / n);
}

}  // namespace decalign::inline DECALIGN_REAL
