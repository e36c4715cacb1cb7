#include "kernels/cpu/polar.h"

#include <cmath>
#include <utility>

namespace decalign::inline DECALIGN_REAL::small {
namespace {

using namespace polar;

// g = x^T x; |I - g|.
double gram(int64_t n, const double* x, double* g) {
  symmetric_product(n, n, transposed(x, n), x, g);
  const int64_t ld = stride(n);
  double squares = 0, diagonal = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double e = g[i * ld + i];
    squares += e * e;
    diagonal += (1 - e) * (1 - e);
  }
  return std::sqrt(std::max(square_sum(g, n * ld) - squares, 0.0) + diagonal);
}

// next = x (a + b g + c g^2); g and square are used up.
void advance(int64_t n, const Step& step, const double* x, double* g, double* square,
             double* next) {
  const int64_t ld = stride(n);
  if (step.c != 0) {
    symmetric_product(n, n, as_is(g, n), g, square);
    for (int64_t i = 0; i < n * ld; i += kDoubles)
      vector_at(g + i) = step.b * vector_at(g + i) + step.c * vector_at(square + i);
  } else {
    for (int64_t i = 0; i < n * ld; i += kDoubles) vector_at(g + i) *= step.b;
  }
  for (int64_t i = 0; i < n; ++i) g[i * ld + i] += step.a;
  product(n, n, n, as_is(x, n), g, next);
}

void scale(int64_t count, double by, double* x) {
  for (int64_t i = 0; i < count; i += kDoubles) vector_at(x + i) *= by;
}

}  // namespace

void orthogonal_factor(int64_t n, double* x, double* work) {
  const int64_t size = matrix_size(n, n);
  double *g = work, *square = g + size, *next = square + size, *const result = x;
  const double norm = std::sqrt(square_sum(x, size));
  if (norm > 0) scale(size, 1 / norm, x);
  for (int64_t i = 0; i < n; ++i) x[i * (stride(n) + 1)] += norm == 0 ? 1 : kLittle;

  double far = gram(n, x, g);
  const double bound = kMargin * std::sqrt(square_sum(g, size));
  scale(size, 1 / bound, g);
  scale(size, 1 / std::sqrt(bound), x);
  int at = 0;
  for (int step = 0; step < kMostSteps; ++step, ++at) {
    if (step > 0) far = gram(n, x, g);
    if (std::isnan(far)) break;
    const bool cubic = step > 0 && far<kCubicEnds, last = step> 0 && far < kQuinticEnds;
    if (last) at = kNewton;
    if (at > kNewton) at = far > kFar ? kAgain : kNewton;
    advance(n, cubic ? kCubic : kSteps[at], x, g, square, next);
    std::swap(x, next);
    if (last) break;
  }
  if (x != result) std::copy_n(x, size, result);
}

}  // namespace decalign::inline DECALIGN_REAL::small
