// Grouped dense layer: rows times weights, a weight per row range, with bias, ReLU and dropout in
// the epilogue.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// One weight and the rows it acts on: rows x_row.. of x give rows y_row.. of y, in columns y_col
/// .. y_col + n.
struct MatmulGroup {
  int64_t x_row = 0, y_row = 0, rows = 0, y_col = 0;
  In weight;      ///< [n, k]
  In bias;        ///< [n] or empty
  InOut dweight;  ///< [n, k], backward only; empty skips it
  InOut dbias;    ///< [n], backward only; empty skips it
};

struct MatmulShape {
  int64_t x_rows = 0, k = 0;       ///< x is [x_rows, k]
  int64_t y_rows = 0, y_cols = 0;  ///< y is [y_rows, y_cols]
  int64_t n = 0;                   ///< columns that each group writes
  bool relu = false;               ///< after the bias
  Dropout dropout;  ///< after the ReLU; element = row * y_cols + column of y. Only with relu.
};

/// y[y_row + i, y_col + j] = drop(relu(sum_l x[x_row + i, l] w[j, l] + b[j])) for every group.
/// The groups must cover every element of y once; several may read the same rows of x.
/// Throws std::invalid_argument for a span or a group that does not fit.
void matmul_forward(const Cpu&, const MatmulShape&, std::span<const MatmulGroup>, In x, Out y,
                    Scratch);
void matmul_forward(const Cuda&, const MatmulShape&, std::span<const MatmulGroup>, In x, Out y,
                    Scratch);

/// With dz = dy where there is no ReLU, else dy * scale where y > 0 and 0 elsewhere (y is the
/// forward result; it may be empty without ReLU):  dx += dz w,  dweight += dz^T x,  dbias += sum
/// over rows of dz. Groups may share dweight.
void matmul_backward(const Cpu&, const MatmulShape&, std::span<const MatmulGroup>, In x, In y,
                     In dy, InOut dx, Scratch);
void matmul_backward(const Cuda&, const MatmulShape&, std::span<const MatmulGroup>, In x, In y,
                     In dy, InOut dx, Scratch);

/// Work space that either direction needs, in bytes.
size_t matmul_scratch_bytes(const Cpu&, const MatmulShape&, std::span<const MatmulGroup>);
size_t matmul_scratch_bytes(const Cuda&, const MatmulShape&, std::span<const MatmulGroup>);

}  // namespace decalign::inline DECALIGN_REAL
