// Maximum mean discrepancy as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/mmd.h"

namespace decalign::inline DECALIGN_REAL {

/// z [M, B, p] -> [1]; `rest` as z, or empty. See kernels/mmd.h.
Tensor mmd(Tape&, const Tensor& z, double bandwidth, const Tensor& rest = {});

}  // namespace decalign::inline DECALIGN_REAL
