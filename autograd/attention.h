// Fused multi-head attention of rows over row ranges. See kernels/attention.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/attention.h"

namespace decalign::inline DECALIGN_REAL {

/// q [R, any] uses columns q_column .. q_column + width, k and v [C, any] those from k_column and
/// v_column on; the three may be the same tensor. Strides and key_rows are taken from the tensors,
/// whatever `shape` says, and k and v must have equally many columns. The shape's spans are copied.
/// Result [R, width].
Tensor attention(Tape&, const AttentionShape& shape, const Tensor& q, const Tensor& k,
                 int64_t k_column, const Tensor& v, int64_t v_column, int64_t q_column = 0);

}  // namespace decalign::inline DECALIGN_REAL
