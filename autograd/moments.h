// Moment matching as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/moments.h"

namespace decalign::inline DECALIGN_REAL {

/// z [M, B, p] -> [1]; `rest` as z, or empty. See kernels/moments.h.
Tensor moment_matching(Tape&, const Tensor& z, Reduction, const Tensor& rest = {});

}  // namespace decalign::inline DECALIGN_REAL
