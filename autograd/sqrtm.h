// Square roots and inverse square roots of symmetric matrices as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/sqrtm.h"

namespace decalign::inline DECALIGN_REAL {

enum class Roots { root, inverse, both };
struct MatrixRoots {
  Tensor root, inverse;  ///< empty if it was not asked for
};

/// a [batch, d, d] -> the same shape. See kernels/sqrtm.h.
MatrixRoots sqrtm(Tape&, const Tensor& a, Roots wanted, double ridge = 0);

}  // namespace decalign::inline DECALIGN_REAL
