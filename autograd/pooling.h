// Masked mean over time, and temporal resampling. See kernels/pooling.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

/// x [R, d] -> [M, B, d]; mask [R] of 0 and 1, in the device's memory, or empty; it must
/// live as long as the step. Offsets are copied.
Tensor pooling(Tape&, const Rows&, const Tensor& x, In mask);

/// x [from.total(), d] -> [to.total(), d].
Tensor temporal_pooling(Tape&, const Rows& from, const Rows& to, const Tensor& x);

}  // namespace decalign::inline DECALIGN_REAL
