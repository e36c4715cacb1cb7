// Cosine decoupling loss as an op.
#pragma once

#include <span>

#include "autograd/tape.h"
#include "kernels/decoupling.h"

namespace decalign::inline DECALIGN_REAL {

/// s, c [rows.total(), d] -> [1].  active [M] of 0 and 1 or empty: all. See kernels/decoupling.h.
Tensor decoupling(Tape&, const Rows&, const Tensor& s, const Tensor& c,
                  std::span<const uint8_t> active, DecouplingLoss);

}  // namespace decalign::inline DECALIGN_REAL
