// Row gather with scale and dropout: the transformer's embedding of its input and of its context.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// rows x_row.. of x become rows y_row.. of y.
struct RowCopy {
  int64_t x_row = 0, y_row = 0, rows = 0;
};

struct DropoutShape {
  int64_t x_rows = 0, y_rows = 0, width = 0;
  double scale = 1;
  Dropout dropout;  ///< element = (row of y) * width + column
};

/// y[y_row + i] = scale * drop(x[x_row + i]). The copies cover every row of y once; rows of x may
/// be read many times or never. With one copy of everything and scale 1 this is plain dropout.
void dropout_forward(const Cpu&, const DropoutShape&, std::span<const RowCopy>, In x, Out y);
void dropout_forward(const Cuda&, const DropoutShape&, std::span<const RowCopy>, In x, Out y);

/// dx[x_row + i] += scale * mask * dy[y_row + i].
void dropout_backward(const Cpu&, const DropoutShape&, std::span<const RowCopy>, In dy, InOut dx);
void dropout_backward(const Cuda&, const DropoutShape&, std::span<const RowCopy>, In dy, InOut dx);

}  // namespace decalign::inline DECALIGN_REAL
