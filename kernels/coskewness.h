// Co-skewness of a sample against a cotangent, with its gradient.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

constexpr int64_t kCoskewnessWidth = 256;  // at most: w has d^3 entries

struct CoskewnessShape {
  int64_t rows = 0, width = 0;  ///< x is [N, d]
};

/// value = sum_jkl w_jkl S_jkl, S_jkl = mean_i y_ij y_ik y_il, y = x - mean: the co-skewness of the
/// columns, not over their deviations, without an array of it.
///
///   x [N, d];  w [d, d, d], of any symmetry: its mean over the six orders counts;
///   mean [d], as sample_moments_collect leaves it in its state (in double);
///   value [1];  dx [N, d] = dvalue/dx = 3 / N (q_ij - mean_i q_ij), q_ij = y_i^T W_j y_i with W
///   the symmetric part of w, or empty: not computed. The way back is a scaled_add.
///
/// 2 N d^3 flops. No rows: 0. Throws std::invalid_argument for a span that does not fit or
/// d > kCoskewnessWidth.
void coskewness_forward(const Cpu&, const CoskewnessShape&, In x, In w,
                        std::span<const double> mean, Out value, Out dx, Scratch);
void coskewness_forward(const Cuda&, const CoskewnessShape&, In x, In w,
                        std::span<const double> mean, Out value, Out dx, Scratch);

size_t coskewness_scratch_bytes(const Cpu&, const CoskewnessShape&);
size_t coskewness_scratch_bytes(const Cuda&, const CoskewnessShape&);

}  // namespace decalign::inline DECALIGN_REAL
