// Dropout and the transformer's embedding of its input. See kernels/dropout.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/dropout.h"

namespace decalign::inline DECALIGN_REAL {

/// drop(x), any shape; x itself if the dropout is off.
Tensor dropout(Tape&, const Tensor& x, const Dropout&);

/// Rows of x [R, d], gathered, scaled and dropped: [y_rows, d]. The copies are copied.
Tensor embed(Tape&, const Tensor& x, std::span<const RowCopy>, int64_t y_rows, double scale,
             const Dropout&);

}  // namespace decalign::inline DECALIGN_REAL
