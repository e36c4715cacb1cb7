// Supervised contrastive loss as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/contrastive.h"

namespace decalign::inline DECALIGN_REAL {

/// features [B, F] -> [1].  classes [B], read on the way forward only. See kernels/contrastive.h.
Tensor contrastive(Tape&, const Tensor& features, std::span<const int32_t> classes,
                   double temperature);

}  // namespace decalign::inline DECALIGN_REAL
