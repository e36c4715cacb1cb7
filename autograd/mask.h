// Zeroing of padded rows. See kernels/mask.h.
#pragma once

#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

/// x [R, d] with the rows whose mask [R] is 0 zeroed. The mask is copied.
Tensor mask_rows(Tape&, const Tensor& x, In mask);

}  // namespace decalign::inline DECALIGN_REAL
