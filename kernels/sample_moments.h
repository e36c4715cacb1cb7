// Mean, variance, skewness and covariance of a sample of any size, from a state that merges.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct SampleMomentsShape {
  int64_t rows = 0, width = 0;  ///< x is [N, d]
  bool covariance = false;      ///< the state holds the products of the columns, too
  int64_t correction = 1;       ///< variance and covariance are over max(n - correction, 1)
  double variance_floor = 0;    ///< of the variance that skewness is divided by
};

/// What is known of n rows, in double: n, mean [d], M2 [d], M3 [d] and, with `covariance`,
/// C [d, d]; M2 = sum_i (x_i - mean)^2, M3 = sum_i (x_i - mean)^3, C = sum_i of the products.
using MomentsState = std::span<double>;
using InMomentsState = std::span<const double>;
constexpr int64_t sample_moments_state_size(const SampleMomentsShape& s) {
  return 1 + 3 * s.width + (s.covariance ? s.width * s.width : 0);
}

/// The state of x's rows: one pass over x, a second one for C.   x [N, d]
/// Sums run in double about the mean of the first rows of their chunk, so that a large mean costs
/// no digits; C's products are summed in reals, 128 rows at a time, of rows less their mean. No
/// rows: zeros.
void sample_moments_collect(const Cpu&, const SampleMomentsShape&, In x, MomentsState, Scratch);
void sample_moments_collect(const Cuda&, const SampleMomentsShape&, In x, MomentsState, Scratch);

/// state = that of its rows and of `other`'s together (Pebay 2008, eq. 2.1 and 3.1 with e = the
/// other's mean - mean, a and b rows, n = a + b):
/// M3 += M3' + e^3 a b (a - b) / n^2 + 3 e (a M2' - b M2) / n;  M2 += M2' + e^2 a b / n;
/// C += C' + e e^T a b / n;  mean += e b / n.
/// sample_moments_collect merges its own chunks in their order by the same rule.
void sample_moments_merge(const Cpu&, const SampleMomentsShape&, InMomentsState other,
                          MomentsState state);
void sample_moments_merge(const Cuda&, const SampleMomentsShape&, InMomentsState other,
                          MomentsState state);

/// mean [d];  variance [d] = M2 / max(n - correction, 1);  covariance [d, d] = C over the same;
/// skewness [d] = M3 / n / max(M2 / n, variance_floor)^1.5, 0 where that is 0 / 0.
/// An empty output is not computed; covariance has to be empty if the state has no C.
void sample_moments_forward(const Cpu&, const SampleMomentsShape&, InMomentsState, Out mean,
                            Out variance, Out skewness, Out covariance);
void sample_moments_forward(const Cuda&, const SampleMomentsShape&, InMomentsState, Out mean,
                            Out variance, Out skewness, Out covariance);

/// dx [N, d] += the way back to rows of the state's, all of them or some; gradients as the outputs
/// above, or empty: zeros. With y = x - mean, v = M2 / n, z = y / sqrt(v), s the skewness:
///   dmean / n + 2 dvariance y / (n - correction) + 3 dskewness / (n sqrt(v)) (z^2 - 1 - s z)
///   + y (dcovariance + dcovariance^T) / (n - correction);
/// where v < variance_floor skewness leaves 3 dskewness / (n floor^1.5) (y^2 - v) alone.
void sample_moments_backward(const Cpu&, const SampleMomentsShape&, In x, InMomentsState, In dmean,
                             In dvariance, In dskewness, In dcovariance, InOut dx, Scratch);
void sample_moments_backward(const Cuda&, const SampleMomentsShape&, In x, InMomentsState, In dmean,
                             In dvariance, In dskewness, In dcovariance, InOut dx, Scratch);

/// Work space of collect and backward, in bytes.
size_t sample_moments_scratch_bytes(const Cpu&, const SampleMomentsShape&);
size_t sample_moments_scratch_bytes(const Cuda&, const SampleMomentsShape&);

}  // namespace decalign::inline DECALIGN_REAL
