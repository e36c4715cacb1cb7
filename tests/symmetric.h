// Symmetric matrices in long double: eigenvalues by Jacobi's rotations, functions of a matrix,
// random examples. References for tests and benchmarks.
#pragma once

#include <cmath>
#include <functional>
#include <random>
#include <vector>

namespace decalign::test {

using Wide = long double;
struct Matrix {
  int n = 0;
  std::vector<Wide> a;
  explicit Matrix(int size) : n(size), a(size_t(size * size), Wide(0)) {}
  Wide& operator()(int i, int j) { return a[size_t(i * n + j)]; }
  Wide operator()(int i, int j) const { return a[size_t(i * n + j)]; }
};

inline Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix c(a.n);
  for (int i = 0; i < a.n; ++i)
    for (int l = 0; l < a.n; ++l)
      for (int j = 0; j < a.n; ++j) c(i, j) += a(i, l) * b(l, j);
  return c;
}

/// Rotates a to diagonal form by cyclic Jacobi; the rows of the result are the eigenvectors.
inline Matrix eigenvectors(Matrix& a) {
  Matrix v(a.n);
  for (int i = 0; i < a.n; ++i) v(i, i) = 1;
  Wide size = 0;
  for (Wide x : a.a) size += x * x;
  for (int sweep = 0; sweep < 40; ++sweep) {
    Wide off = 0;
    for (int p = 0; p < a.n; ++p)
      for (int q = p + 1; q < a.n; ++q) {
        off += a(p, q) * a(p, q);
        if (a(p, q) == 0) continue;
        const Wide theta = (a(q, q) - a(p, p)) / (2 * a(p, q));
        const Wide t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const Wide c = 1 / std::sqrt(t * t + 1), s = t * c;
        const auto rotate = [&](Wide& x, Wide& y) {
          const Wide old = x;
          x = c * old - s * y;
          y = s * old + c * y;
        };
        for (int k = 0; k < a.n; ++k) rotate(a(k, p), a(k, q));
        for (int k = 0; k < a.n; ++k) rotate(a(p, k), a(q, k)), rotate(v(p, k), v(q, k));
      }
    if (off <= size * 1e-40L) break;
  }
  return v;
}

/// sum f(eigenvalue) v v^T
inline Matrix function_of(Matrix a, const std::function<Wide(Wide)>& f) {
  const Matrix v = eigenvectors(a);
  Matrix r(a.n);
  for (int l = 0; l < a.n; ++l) {
    const Wide value = f(a(l, l));
    for (int i = 0; i < a.n; ++i)
      for (int j = 0; j < a.n; ++j) r(i, j) += value * v(l, i) * v(l, j);
  }
  return r;
}
/// Eigenvalues within rounding of 0 are 0: their roots would not be within rounding.
inline Matrix root(const Matrix& a) {
  Wide trace = 0;
  for (int i = 0; i < a.n; ++i) trace += a(i, i);
  return function_of(a, [=](Wide x) { return x < 1e-17L * trace ? 0 : std::sqrt(x); });
}
inline Matrix inverse_root(const Matrix& a) {
  return function_of(a, [](Wide x) { return 1 / std::sqrt(x); });
}

/// A covariance with eigenvalues from 1 to 1 / condition, evenly in the logarithm, in random
/// directions.
inline Matrix random_covariance(int n, double condition, unsigned seed) {
  std::mt19937 rng(seed);
  Matrix q(n), r(n);
  for (int l = 0; l < n; ++l) {
    for (int repeat = 0; repeat < 2; ++repeat) {
      if (repeat == 0)
        for (int i = 0; i < n; ++i) {
          Wide sum = -6;  // nearly normal
          for (int k = 0; k < 12; ++k) sum += Wide(rng()) / 4294967296.0L;
          q(l, i) = sum;
        }
      for (int m = 0; m < l; ++m) {
        Wide dot = 0;
        for (int i = 0; i < n; ++i) dot += q(l, i) * q(m, i);
        for (int i = 0; i < n; ++i) q(l, i) -= dot * q(m, i);
      }
      Wide norm = 0;
      for (int i = 0; i < n; ++i) norm += q(l, i) * q(l, i);
      for (int i = 0; i < n; ++i) q(l, i) /= std::sqrt(norm);
    }
    const Wide value = n == 1 ? Wide(1) : std::pow(Wide(condition), -Wide(l) / (n - 1));
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) r(i, j) += value * q(l, i) * q(l, j);
  }
  return r;
}

/// tr a + tr b - 2 tr (a^1/2 b a^1/2)^1/2 by its definition.
inline Wide bures_by_roots(const Matrix& a, const Matrix& b) {
  const Matrix s = root(a), middle = root(s * b * s);
  Wide sum = 0;
  for (int i = 0; i < a.n; ++i) sum += a(i, i) + b(i, i) - 2 * middle(i, i);
  return sum;
}

/// Its gradient with respect to a, regular: I - a^-1/2 (a^1/2 b a^1/2)^1/2 a^-1/2.
inline Matrix bures_gradient_by_roots(const Matrix& a, const Matrix& b) {
  const Matrix s = root(a), t = inverse_root(a);
  Matrix g = t * root(s * b * s) * t;
  for (int i = 0; i < a.n; ++i)
    for (int j = 0; j < a.n; ++j) g(i, j) = (i == j) - g(i, j);
  return g;
}

}  // namespace decalign::test
