// Gaussian error linear unit. See kernels/gelu.h.
#pragma once

#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

/// x Phi(x), any shape.
Tensor gelu(Tape&, const Tensor& x);

}  // namespace decalign::inline DECALIGN_REAL
