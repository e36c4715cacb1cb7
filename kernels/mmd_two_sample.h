// Gaussian-kernel maximum mean discrepancy of two samples of any size, with its gradient.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

constexpr int64_t kMmdBandwidths = 16;  // at most

enum class MmdArithmetic {
  differences,  ///< sums of squared differences
  products      ///< Cuda, in float: |u|^2 + |v|^2 - 2 u v on tensor cores; elsewhere differences
};

struct MmdTwoSampleShape {
  int64_t x_rows = 0, y_rows = 0, width = 0;  ///< x is [n, d], y [m, d]
  int64_t bandwidths = 1;                     ///< L, 1 to kMmdBandwidths
  bool unbiased = false;                      ///< the U-statistic
  MmdArithmetic arithmetic = MmdArithmetic::differences;
};

/// value = a sum_ij k(x_i, x_j) + b sum_ij k(y_i, y_j) - 2 / (n m) sum_ij k(x_i, y_j),
/// k(u, v) = sum_l weights[l] exp(-|u - v|^2 / (2 bandwidths[l])).
/// Biased: a = 1 / n^2, b = 1 / m^2, the diagonal counts (Gretton et al. 2012, eq. 5). Unbiased:
/// a = 1 / (n (n - 1)), b = 1 / (m (m - 1)), without the diagonal (eq. 3): it may be negative.
///
///   x [n, d];  y [m, d];  bandwidths [L], each > 0: a square of a length;  weights [L], any sign;
///   value [1];  dx [n, d], dy [m, d], dbandwidths [L]: dvalue/dx and so on, or empty: not
///   computed. The way back is a scaled_add of each (scaled_add.h).
///
/// One pass over the pairs of rows, scratch O((n + m) d). Where bandwidths[l] is half of
/// bandwidths[l - 1], its kernel is the square of the one before: from the widest to the narrowest,
/// each half of the one before, L kernels cost one exp. Distances and gradients are sums of
/// differences, so that nothing is lost where points lie close together or far from the origin;
/// kernels are summed in double. With products a squared distance has an error of a few eps of
/// |u - c|^2 + |v - c|^2, c about the mean of all rows, and a pull one of as much of its terms
/// P (u - c): nothing is lost where bandwidths are of the size of the samples' spread.
///
/// No rows in a sample: 0. A bandwidth that is not > 0 makes the value NaN (they may lie in a
/// device's memory, and are not looked at before). Throws std::invalid_argument for the unbiased
/// form of a sample of one row or none.
void mmd_two_sample_forward(const Cpu&, const MmdTwoSampleShape&, In x, In y, In bandwidths,
                            In weights, Out value, Out dx, Out dy, Out dbandwidths, Scratch);
void mmd_two_sample_forward(const Cuda&, const MmdTwoSampleShape&, In x, In y, In bandwidths,
                            In weights, Out value, Out dx, Out dy, Out dbandwidths, Scratch);

/// bandwidth [1] = the median of the squared distances between distinct rows of the two samples
/// taken together: the median heuristic's bandwidth, exp(-|u - v|^2 / (2 median)).
///
/// Up to kMmdMedianRows rows in all: of every pair. More: of the pairs among kMmdMedianRows rows
/// i (n + m) / kMmdMedianRows, rounded down, counted through x and then y. The median of an even
/// number is the lower one. If it is 0, the mean of the squared distances; if that is 0, too, or
/// there are no pairs, 1.
constexpr int64_t kMmdMedianRows = 1024;
void mmd_median_bandwidth(const Cpu&, const MmdTwoSampleShape&, In x, In y, Out bandwidth, Scratch);
void mmd_median_bandwidth(const Cuda&, const MmdTwoSampleShape&, In x, In y, Out bandwidth,
                          Scratch);

/// Work space of either, in bytes.
size_t mmd_two_sample_scratch_bytes(const Cpu&, const MmdTwoSampleShape&);
size_t mmd_two_sample_scratch_bytes(const Cuda&, const MmdTwoSampleShape&);
size_t mmd_median_scratch_bytes(const Cpu&, const MmdTwoSampleShape&);
size_t mmd_median_scratch_bytes(const Cuda&, const MmdTwoSampleShape&);

}  // namespace decalign::inline DECALIGN_REAL
