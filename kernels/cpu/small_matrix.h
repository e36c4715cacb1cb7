// Products of small matrices, some hundred rows at most, in double and in one thread's hands.
// A matrix [rows, columns] has rows of stride(columns) elements, 64-byte aligned, filled up with 0.
#pragma once

#include <algorithm>

#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL::small {

typedef double vdouble __attribute__((vector_size(kVectorBytes), may_alias));
constexpr int64_t kDoubles = kVectorBytes / int64_t(sizeof(double));

/// Elements from one row to the next.
constexpr int64_t stride(int64_t columns) { return round_up(columns, kDoubles); }
constexpr int64_t matrix_size(int64_t rows, int64_t columns) { return rows * stride(columns); }

inline vdouble& vector_at(double* p) { return *reinterpret_cast<vdouble*>(p); }
inline const vdouble& vector_at(const double* p) { return *reinterpret_cast<const vdouble*>(p); }

/// The left side of a product: element (i, l) is at[i * row + l * column].
struct Left {
  const double* at;
  int64_t row, column;
};
inline Left as_is(const double* a, int64_t columns) { return {a, stride(columns), 1}; }
inline Left transposed(const double* a, int64_t columns) { return {a, 1, stride(columns)}; }

/// c [rows, columns] = a [rows, depth] b [depth, columns]. A sum runs over the depth in ascending
/// order.
void product(int64_t rows, int64_t depth, int64_t columns, const Left& a, const double* b,
             double* c);
/// The same where c [n, n] is known to be symmetric: little more than half of it is computed.
void symmetric_product(int64_t n, int64_t depth, const Left& a, const double* b, double* c);

/// b [columns, rows] = the transpose of a [rows, columns].
void transpose(int64_t rows, int64_t columns, const double* a, double* b);

/// The sum of the squares of `count` elements, whole vectors.
double square_sum(const double* a, int64_t count);

/// a [rows, columns] from, and to, dense rows of T.
template <class T>
void read(int64_t rows, int64_t columns, const T* from, double* a) {
  const int64_t ld = stride(columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) a[i * ld + j] = double(from[i * columns + j]);
    std::fill(a + i * ld + columns, a + (i + 1) * ld, 0.0);
  }
}
template <class T>
void write(int64_t rows, int64_t columns, const double* a, T* to) {
  const int64_t ld = stride(columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[i * columns + j] = T(a[i * ld + j]);
}

}  // namespace decalign::inline DECALIGN_REAL::small
