// Maximum mean discrepancy of two samples as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/mmd_two_sample.h"

namespace decalign::inline DECALIGN_REAL {

/// x [n, d], y [m, d], bandwidths [L], weights [L] (constant) -> [1]. See
/// kernels/mmd_two_sample.h.
Tensor mmd_two_sample(Tape&, const Tensor& x, const Tensor& y, const Tensor& bandwidths,
                      const Tensor& weights, bool unbiased = false,
                      MmdArithmetic = MmdArithmetic::differences);

/// The median heuristic's bandwidth of x and y -> [1], without a gradient.
Tensor mmd_median_bandwidth(Tape&, const Tensor& x, const Tensor& y);

}  // namespace decalign::inline DECALIGN_REAL
