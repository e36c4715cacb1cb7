// Zeroing of padded rows. See kernels/mask.h.
#pragma once

#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

/// x [R, d] with the rows whose mask [R] is 0 zeroed. The mask is in the device's memory and must
/// live as long as the step.
Tensor mask_rows(Tape&, const Tensor& x, In mask);

}  // namespace decalign::inline DECALIGN_REAL
