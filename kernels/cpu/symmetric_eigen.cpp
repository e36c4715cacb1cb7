#include "kernels/cpu/symmetric_eigen.h"

#include <cmath>
#include <limits>

namespace decalign::inline DECALIGN_REAL::small {
namespace {

constexpr int kMostSteps = 60;  // QL steps for an eigenvalue; two or three are usual

double dot(int64_t count, const double* x, const double* y) {
  vdouble sum{};
  for (int64_t j = 0; j < count; j += kDoubles) sum += vector_at(x + j) * vector_at(y + j);
  double total = 0;
  for (int64_t i = 0; i < kDoubles; ++i) total += sum[i];
  return total;
}

// y [ld] = sum over rows from `first` to n of x[i] a[i, :], columns from `from` (a whole vector)
// on.
void combine_rows(int64_t first, int64_t n, int64_t from, int64_t ld, const double* x,
                  const double* a, double* y) {
  constexpr int64_t kBlock = 4 * kDoubles;
  for (int64_t j = from; j < ld; j += kBlock) {
    const int64_t vectors = std::min<int64_t>(4, (ld - j) / kDoubles);
    vdouble sum[4] = {};
    if (vectors == 4) {
      for (int64_t i = first; i < n; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sum[v] += x[i] * vector_at(a + i * ld + j + v * kDoubles);
    } else {
      for (int64_t i = first; i < n; ++i)
        for (int64_t v = 0; v < vectors; ++v)
          sum[v] += x[i] * vector_at(a + i * ld + j + v * kDoubles);
    }
    for (int64_t v = 0; v < vectors; ++v) vector_at(y + j + v * kDoubles) = sum[v];
  }
}

// The reflection I - beta v v^T that takes x [first .. n] to a multiple of its first element, which
// is returned. v is left in x, zero before `first`.
double reflector(int64_t first, int64_t n, double* x, double& beta) {
  for (int64_t i = 0; i < first; ++i) x[i] = 0;
  double rest = 0;
  for (int64_t i = first + 1; i < n; ++i) rest += x[i] * x[i];
  const double head = x[first];
  beta = 0;
  if (rest == 0) return head;
  const double norm = std::sqrt(head * head + rest), to = head > 0 ? -norm : norm;
  x[first] = head - to;
  beta = 1 / (norm * (norm + std::abs(head)));
  return to;
}

// a becomes tridiagonal: diagonal d, e[i] beside d[i] and d[i + 1]. Row k of a keeps the vector of
// reflection k, beta[k] its factor.
void tridiagonalise(int64_t n, double* a, double* d, double* e, double* beta, double* p) {
  const int64_t ld = stride(n);
  for (int64_t k = 0; k + 1 < n; ++k) {
    double* v = a + k * ld;
    d[k] = v[k];
    e[k] = reflector(k + 1, n, v, beta[k]);
    if (beta[k] == 0) continue;
    const int64_t from = (k + 1) / kDoubles * kDoubles;
    combine_rows(k + 1, n, from, ld, v, a, p);
    for (int64_t j = from; j < ld; j += kDoubles) vector_at(p + j) *= beta[k];
    const double half = 0.5 * beta[k] * dot(ld - from, p + from, v + from);
    for (int64_t j = from; j < ld; j += kDoubles) vector_at(p + j) -= half * vector_at(v + j);
    for (int64_t i = k + 1; i < n; ++i)
      for (int64_t j = from; j < ld; j += kDoubles)
        vector_at(a + i * ld + j) -= v[i] * vector_at(p + j) + p[i] * vector_at(v + j);
  }
  d[n - 1] = a[(n - 1) * ld + n - 1];
  e[n - 1] = 0;
}

// q [n, n] = the product of all reflections.
void accumulate(int64_t n, const double* a, const double* beta, double* p, double* q) {
  const int64_t ld = stride(n);
  std::fill_n(q, n * ld, 0.0);
  for (int64_t i = 0; i < n; ++i) q[i * (ld + 1)] = 1;
  for (int64_t k = n - 2; k >= 0; --k) {
    if (beta[k] == 0) continue;
    const double* v = a + k * ld;
    const int64_t from = (k + 1) / kDoubles * kDoubles;
    combine_rows(k + 1, n, from, ld, v, q, p);
    for (int64_t i = k + 1; i < n; ++i) {
      const double x = beta[k] * v[i];
      for (int64_t j = from; j < ld; j += kDoubles)
        vector_at(q + i * ld + j) -= x * vector_at(p + j);
    }
  }
}

void rotate(int64_t ld, double c, double s, double* low, double* high) {
  for (int64_t j = 0; j < ld; j += kDoubles) {
    const vdouble x = vector_at(low + j), y = vector_at(high + j);
    vector_at(high + j) = s * x + c * y;
    vector_at(low + j) = c * x - s * y;
  }
}

// One QL step on rows l .. m with Wilkinson's shift.
void ql_step(int64_t l, int64_t m, int64_t ld, double* d, double* e, double* rows) {
  const double half = (d[l + 1] - d[l]) / (2 * e[l]), length = std::sqrt(half * half + 1);
  double g = d[m] - d[l] + e[l] / (half + (half < 0 ? -length : length)), s = 1, c = 1, p = 0;
  for (int64_t i = m - 1; i >= l; --i) {
    const double f = s * e[i], b = c * e[i], r = std::sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r == 0) {  // it falls apart earlier
      d[i + 1] -= p;
      e[m] = 0;
      return;
    }
    const double inverse = 1 / r;
    s = f * inverse;
    c = g * inverse;
    g = d[i + 1] - p;
    const double t = (d[i] - g) * s + 2 * c * b;
    p = s * t;
    d[i + 1] = g + p;
    g = c * t - b;
    rotate(ld, c, s, rows + i * ld, rows + (i + 1) * ld);
  }
  d[l] -= p;
  e[l] = g;
  e[m] = 0;
}

}  // namespace

void symmetric_eigen(int64_t n, double* a, double* vectors, double* values, double* work) {
  const int64_t ld = stride(n);
  double *q = work, *e = q + n * ld, *beta = e + ld, *p = beta + ld;
  double largest = 0;
  bool number = true;
  for (int64_t i = 0; i < n * ld; ++i) {
    largest = std::max(largest, std::abs(a[i]));
    number = number && std::isfinite(a[i]);
  }
  if (!number) {
    std::fill_n(vectors, n * ld, std::numeric_limits<double>::quiet_NaN());
    std::fill_n(values, n, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  const double unit = largest > 0 ? largest : 1;
  for (int64_t i = 0; i < n * ld; i += kDoubles) vector_at(a + i) /= unit + vdouble{};
  tridiagonalise(n, a, values, e, beta, p);
  accumulate(n, a, beta, p, q);
  transpose(n, n, q, vectors);
  for (int64_t l = 0; l < n; ++l)
    for (int step = 0; step < kMostSteps; ++step) {
      int64_t m = l;
      for (; m + 1 < n; ++m) {
        const double sum = std::abs(values[m]) + std::abs(values[m + 1]);
        if (std::abs(e[m]) <= std::numeric_limits<double>::epsilon() / 2 * sum) break;
      }
      if (m == l) break;
      ql_step(l, m, ld, values, e, vectors);
    }
  for (int64_t i = 0; i < n; ++i) values[i] *= unit;
}

}  // namespace decalign::inline DECALIGN_REAL::small
