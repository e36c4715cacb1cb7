// The orthogonal polar factor of a small matrix, by matrix products alone.
#pragma once

#include "kernels/cpu/small_matrix.h"
#include "kernels/polar_steps.h"

namespace decalign::inline DECALIGN_REAL::small {

/// Elements of `work` that orthogonal_factor needs.
constexpr int64_t polar_work_size(int64_t n) { return 3 * matrix_size(n, n); }

/// x [n, n] becomes the Q of x = Q P, Q orthogonal, P symmetric and positive semidefinite. In
/// directions of singular values below rounding Q is one of many. NaN or infinity anywhere give
/// NaN.
void orthogonal_factor(int64_t n, double* x, double* work);

}  // namespace decalign::inline DECALIGN_REAL::small
