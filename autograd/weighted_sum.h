// Weighted sum of scalar losses as an op.
#pragma once

#include <span>

#include "autograd/tape.h"
#include "kernels/weighted_sum.h"

namespace decalign::inline DECALIGN_REAL {

/// sum_i weights[i] terms[i] of terms [1] -> [1]. A term of weight 0 is not read and gets no
/// gradient, so that its whole branch is skipped on the way back. See kernels/weighted_sum.h.
Tensor weighted_sum(Tape&, std::span<const Tensor> terms, std::span<const double> weights);

}  // namespace decalign::inline DECALIGN_REAL
