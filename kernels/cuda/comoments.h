// Sums of products of centred columns, and their way back: the matrix products of sample_moments.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

/// c [d, d] = sum_i (x_i - mean) (x_i - mean)^T.   x [rows, d]
void comoments(const Cuda&, int64_t rows, int64_t d, const real* x, const double* mean, double* c,
               Scratch);
size_t comoments_scratch_bytes(const Cuda&, int64_t rows, int64_t d);
/// dx [rows, d] += (x - mean) (g + g^T) / max(n - correction, 1); n and mean from `state`
void pull_rows(const Cuda&, int64_t rows, int64_t d, int64_t correction, const real* x,
               const double* state, const real* g, real* dx);

}  // namespace decalign::inline DECALIGN_REAL
