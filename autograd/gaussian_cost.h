// Transport costs between the prototypes of every pair of modalities as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/gaussian_cost.h"

namespace decalign::inline DECALIGN_REAL {

/// means, variances [M, K, d] -> [M (M - 1) / 2, K, K]. See kernels/gaussian_cost.h.
Tensor gaussian_cost(Tape&, const Tensor& means, const Tensor& variances, Reduction);

}  // namespace decalign::inline DECALIGN_REAL
