// Moment matching as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/moments.h"

namespace decalign::inline DECALIGN_REAL {

/// z [M, B, p] -> [1]. See kernels/moments.h.
Tensor moment_matching(Tape&, const Tensor& z, Reduction);

}  // namespace decalign::inline DECALIGN_REAL
