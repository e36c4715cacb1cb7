// Residual, dropout and layer normalisation. See kernels/layer_norm.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// Rows row .. row + rows have this scale and shift, both [width].
struct LayerNormPart {
  int64_t row = 0, rows = 0;
  Tensor weight, bias;
};

/// LN(x + drop(z)), x and z [rows, width]; z may be a default Tensor.
Tensor layer_norm(Tape&, const Tensor& x, const Tensor& z, std::span<const LayerNormPart>,
                  const Dropout&, double eps = 1e-5);

}  // namespace decalign::inline DECALIGN_REAL
