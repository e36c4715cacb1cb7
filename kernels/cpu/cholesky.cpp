#include "kernels/cpu/cholesky.h"

#include <cmath>
#include <limits>

namespace decalign::inline DECALIGN_REAL::small {
namespace {

constexpr int64_t kBlock = 8;  // rows at a time; what the others do to them is a product

// row -= x * other, whole vectors from column `from` on.
void subtract(int64_t from, int64_t ld, double x, const double* other, double* row) {
  for (int64_t j = from / kDoubles * kDoubles; j < ld; j += kDoubles)
    vector_at(row + j) -= x * vector_at(other + j);
}

}  // namespace

void cholesky(int64_t n, const real* s, double ridge, double* upper, double* work) {
  const int64_t ld = stride(n);
  read(n, n, s, work);
  transpose(n, n, work, upper);
  for (int64_t i = 0; i < n * ld; i += kDoubles)
    vector_at(upper + i) = 0.5 * vector_at(upper + i) + 0.5 * vector_at(work + i);
  for (int64_t i = 0; i < n; ++i) upper[i * (ld + 1)] += ridge;
  for (int64_t top = 0; top < n; top += kBlock) {
    const int64_t end = std::min(n, top + kBlock);
    if (top > 0) product(end - top, top, n, Left{upper + top, 1, ld}, upper, work);
    for (int64_t i = top; i < end; ++i) {
      double* row = upper + i * ld;
      const double whole = row[i];
      if (top > 0) subtract(i, ld, 1, work + (i - top) * ld, row);
      for (int64_t k = top; k < i; ++k) subtract(i, ld, upper[k * ld + i], upper + k * ld, row);
      const double pivot = row[i], little = 4 * double(std::numeric_limits<real>::epsilon());
      const double scale = std::abs(pivot) <= little * std::abs(whole) ? 0 : 1 / std::sqrt(pivot);
      for (int64_t j = 0; j < n; ++j) row[j] = j < i ? 0 : row[j] * scale;
    }
  }
}

void solve_upper(int64_t n, int64_t columns, const double* upper, double* x, double* work) {
  const int64_t ld = stride(n), width = stride(columns);
  for (int64_t end = n; end > 0; end -= std::min(end, kBlock)) {
    const int64_t top = std::max<int64_t>(0, end - kBlock);
    if (end < n)
      product(end - top, n - end, columns, Left{upper + top * ld + end, ld, 1}, x + end * width,
              work);
    for (int64_t i = end - 1; i >= top; --i) {
      double* row = x + i * width;
      if (end < n) subtract(0, width, 1, work + (i - top) * width, row);
      for (int64_t k = i + 1; k < end; ++k)
        subtract(0, width, upper[i * ld + k], x + k * width, row);
      const double pivot = upper[i * ld + i], inverse = pivot == 0 ? 0 : 1 / pivot;
      for (int64_t j = 0; j < width; j += kDoubles) vector_at(row + j) *= inverse;
    }
  }
}

}  // namespace decalign::inline DECALIGN_REAL::small
