// Grouped dense layer. See kernels/matmul.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// Rows x_row.. of x times rows weight_row .. weight_row + n of `weight` give rows y_row.., columns
/// y_col .. of y.
struct MatmulPart {
  int64_t x_row = 0, y_row = 0, rows = 0, y_col = 0;
  Tensor weight;  ///< [any, k]
  Tensor bias;    ///< [any], its elements weight_row .. weight_row + n are used; default: none
  int64_t weight_row = 0;
  int64_t n = 0;  ///< 0: all rows of weight from weight_row on; the same for every part
};

struct MatmulEpilogue {
  bool relu = false;
  Dropout dropout;  ///< after the ReLU, only with it
};

/// x [rows, k] -> [y_rows, y_cols]. Parts cover the result once.
Tensor matmul(Tape&, const Tensor& x, std::span<const MatmulPart> parts, int64_t y_rows,
              int64_t y_cols, MatmulEpilogue = {});

}  // namespace decalign::inline DECALIGN_REAL
