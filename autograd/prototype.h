// Prototype calibration as an op.
#pragma once

#include "autograd/gmm.h"
#include "kernels/prototype.h"

namespace decalign::inline DECALIGN_REAL {

/// x [M, B, d] against the mixtures fitted to it -> [1]. See kernels/prototype.h.
Tensor prototype_calibration(Tape&, const Tensor& x, const Mixture&, const PrototypeOptions&);

}  // namespace decalign::inline DECALIGN_REAL
