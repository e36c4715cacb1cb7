// Squared Wasserstein distances between Gaussians as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/bures.h"

namespace decalign::inline DECALIGN_REAL {

/// means [M, K, d], spread [M, K, d, rank] or, for variances, [M, K, d] -> [pairs, K, K] or, for
/// matched pairs, [pairs, K]. See kernels/bures.h.
Tensor bures(Tape&, const Tensor& means, const Tensor& spread, const BuresOptions&);

}  // namespace decalign::inline DECALIGN_REAL
