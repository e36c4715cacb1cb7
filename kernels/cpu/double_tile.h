// Small dense algebra in double, in every build: a tile is [d, kTileRows], samples in the lanes, so
// that triangular solves and symmetric products run over all of its samples at once.
#pragma once

#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL {

typedef double vdouble __attribute__((vector_size(kVectorBytes)));
typedef double vdouble_unaligned
    __attribute__((vector_size(kVectorBytes), aligned(sizeof(double)), may_alias));

constexpr int64_t kDoubleLanes = kVectorBytes / int64_t(sizeof(double));
constexpr int64_t kTileVectors = 4;
constexpr int64_t kTileRows = kTileVectors * kDoubleLanes;  ///< samples of a tile

/// Row stride of a [d, d] matrix whose rows begin at a whole vector.
constexpr int64_t matrix_stride(int64_t d) { return round_up(d, kDoubleLanes); }

/// The upper factor U of a = U^T U in place, a [d, d] (row stride matrix_stride(d)). Of the
/// lower triangle nothing is read, and nothing left of a row's diagonal keeps its value. A squared
/// pivot that rounding makes smaller than `least` is `least`.
void cholesky(int64_t d, double least, double* a);

/// y = U^-T y, and squares [kTileRows] (if not null) = the squared norms of the columns of y.
void solve_lower(int64_t d, const double* u, double* y, double* squares);
/// y = U^-1 y.
void solve_upper(int64_t d, const double* u, double* y);

/// out = a e for a [d, d], both e and out tiles.
void multiply_tile(int64_t d, const double* a, const double* e, double* out);

/// Upper triangle of c [d, d] += a^T b with a, b [rows, d], all with stride matrix_stride(d) and
/// zeros beyond column d. Elements below the diagonal may be overwritten.
void add_symmetric(int64_t rows, int64_t d, const double* a, const double* b, double* c);

/// Upper triangle of the inverse of U^T U. work [d, d].
void invert_symmetric(int64_t d, const double* u, double* inverse, double* work);

}  // namespace decalign::inline DECALIGN_REAL
