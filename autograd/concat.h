// The fusion head's input. See kernels/concat.h.
#pragma once

#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

/// Parts [A, B, d] of the active modalities -> [B, parts * M * d], part-major, then modality.
/// active [M] is copied; blocks of inactive modalities are zero.
Tensor concat(Tape&, std::span<const Tensor> parts, std::span<const uint8_t> active);

}  // namespace decalign::inline DECALIGN_REAL
