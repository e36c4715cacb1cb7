// Sums of products of centred columns, and their way back: the matrix products of sample_moments.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// c [d, d] = sum_i (x_i - mean) (x_i - mean)^T.   x [rows, d]
void comoments(const Cpu&, int64_t rows, int64_t d, const real* x, const double* mean, double* c,
               Scratch);
/// Packs scale (g + g^T), g [d, d], for pull_rows.
void pack_pull(int64_t d, const real* g, double scale, Scratch packed);
/// dx [rows, d] += (x - mean) scale (g + g^T)
void pull_rows(int64_t rows, int64_t d, const real* x, const double* mean, Scratch packed,
               real* dx);
size_t comoments_scratch_bytes(const Cpu&, int64_t rows, int64_t d);

}  // namespace decalign::inline DECALIGN_REAL
