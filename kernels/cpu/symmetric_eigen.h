// Eigenvalues and eigenvectors of small symmetric matrices. See small_matrix.h for the layout.
#pragma once

#include "kernels/cpu/small_matrix.h"

namespace decalign::inline DECALIGN_REAL::small {

/// Elements of `work` that symmetric_eigen needs.
constexpr int64_t eigen_work_size(int64_t n) { return matrix_size(n, n) + 4 * stride(n); }

/// a [n, n] = vectors^T diag(values) vectors: an eigenvector a row, in no particular order. `a` is
/// used up. Tridiagonal by Householder, then implicit QL (Bowdler, Martin, Reinsch, Wilkinson
/// 1968). NaN where a has one or an infinity.
void symmetric_eigen(int64_t n, double* a, double* vectors, double* values, double* work);

}  // namespace decalign::inline DECALIGN_REAL::small
