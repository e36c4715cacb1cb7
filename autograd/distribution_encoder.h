// The distribution encoder as an op. See kernels/distribution_encoder.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// One modality's weights: [hidden, width], [hidden], [outputs, hidden], [outputs].
struct DistributionEncoderPart {
  Tensor weight1, bias1, weight2, bias2;
};

/// z + rest [M, B, outputs]: the codes and what rounding took from them; their gradient is
/// that of z + that of rest, in the same way.
struct Distributions {
  Tensor z, rest;
};

/// x [M, B, width], one part per modality.
Distributions distribution_encoder(Tape&, const Tensor& x,
                                   std::span<const DistributionEncoderPart> parts,
                                   const Dropout& dropout = {});

}  // namespace decalign::inline DECALIGN_REAL
