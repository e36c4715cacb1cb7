// Cholesky factors of small matrices and solves with them. See small_matrix.h for the layout.
#pragma once

#include "kernels/cpu/small_matrix.h"

namespace decalign::inline DECALIGN_REAL::small {

/// Elements of `work` that either function needs for matrices of up to n columns.
constexpr int64_t cholesky_work_size(int64_t n) { return (8 + n) * stride(n); }

/// upper [n, n], upper^T upper = (s + s^T) / 2 + ridge I, s [n, n] in dense rows.
/// A pivot within 4 eps of real of 0, relative to its diagonal element, makes a row of zeros; a
/// negative one beyond makes NaN.
void cholesky(int64_t n, const real* s, double ridge, double* upper, double* work);

/// x [n, columns] becomes the solution z of upper z = x; rows of z are 0 where upper's are.
void solve_upper(int64_t n, int64_t columns, const double* upper, double* x, double* work);

}  // namespace decalign::inline DECALIGN_REAL::small
