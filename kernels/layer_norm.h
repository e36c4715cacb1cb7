// Residual, dropout and layer normalisation in one pass.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// Scale and shift of a row range (one per modality). The groups cover all rows once, in ascending
/// order.
struct LayerNormGroup {
  int64_t row = 0, rows = 0;
  In weight, bias;       ///< [width]
  InOut dweight, dbias;  ///< [width], backward only
};

struct LayerNormShape {
  int64_t rows = 0, width = 0;
  double eps = 1e-5;
  Dropout dropout;  ///< on z; element = row * width + column
};

/// r = x + drop(z),  y = (r - mean(r)) * rstd * weight + bias,  rstd = 1 / sqrt(var(r) + eps),
/// biased variance.
///
///   x, z, y [rows, width]; z empty: r = x.   sum [rows, width] receives r, stats [rows, 2] mean
///   and rstd, both kept for the backward pass. sum may alias z.
void layer_norm_forward(const Cpu&, const LayerNormShape&, std::span<const LayerNormGroup>, In x,
                        In z, Out sum, Out stats, Out y);
void layer_norm_forward(const Cuda&, const LayerNormShape&, std::span<const LayerNormGroup>, In x,
                        In z, Out sum, Out stats, Out y);

/// dx += dr, dz += dr * mask, dweight += sum dy * xhat, dbias += sum dy.
void layer_norm_backward(const Cpu&, const LayerNormShape&, std::span<const LayerNormGroup>, In sum,
                         In stats, In dy, InOut dx, InOut dz, Scratch);
void layer_norm_backward(const Cuda&, const LayerNormShape&, std::span<const LayerNormGroup>,
                         In sum, In stats, In dy, InOut dx, InOut dz, Scratch);

size_t layer_norm_scratch_bytes(const Cpu&, const LayerNormShape&);
size_t layer_norm_scratch_bytes(const Cuda&, const LayerNormShape&);

}  // namespace decalign::inline DECALIGN_REAL
