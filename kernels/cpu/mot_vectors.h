// Vectors of float or of double in the machine's widest registers, whatever `real` is.
#pragma once

#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {

template <class T>
struct Lanes {
  typedef T vec __attribute__((vector_size(kVectorBytes)));
  static constexpr int64_t n = kVectorBytes / int64_t(sizeof(T));
};
template <class T>
using vec = typename Lanes<T>::vec;
constexpr int64_t kDoubles = Lanes<double>::n;

template <class T>
[[gnu::always_inline]] inline vec<T> vload(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class T>
[[gnu::always_inline]] inline void vstore(T* p, vec<T> v) {
  std::memcpy(p, &v, sizeof(v));
}
template <class T>
[[gnu::always_inline]] inline vec<T> splat(T x) {
  return x - vec<T>{};
}
/// In lane order, in double.
template <class T>
inline double total(vec<T> v) {
  double sum = 0;
  for (int64_t i = 0; i < Lanes<T>::n; ++i) sum += double(v[i]);
  return sum;
}
inline double largest(vec<double> v) {
  double top = v[0];
  for (int64_t i = 1; i < kDoubles; ++i) top = v[i] > top ? v[i] : top;
  return top;
}
[[gnu::always_inline]] inline vec<double> larger(vec<double> a, vec<double> b) {
  return a > b ? a : b;
}

/// e^x within 2 ulp; 0 below -708, for -inf too; e^709 beyond 709.
[[gnu::always_inline]] inline vec<double> exp_lanes(vec<double> x) {
  typedef int64_t vint64 __attribute__((vector_size(kVectorBytes)));
  constexpr double log2e = 1.4426950408889634, ln2_hi = 6.93145751953125e-1,
                   ln2_lo = 1.42860682030941723212e-6, magic = 6755399441055744.0;
  constexpr double c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                          1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                          1.0 / 120,        1.0 / 24,        1.0 / 6,        0.5};
  x = x > 709.0 ? splat(709.0) : x;
  const vec<double> shifted = x * log2e + magic, n = shifted - magic;
  vec<double> r = x - n * ln2_hi;
  r = r - n * ln2_lo;
  vec<double> y = splat(c[0]);
#pragma GCC unroll 16
  for (size_t i = 1; i < sizeof(c) / sizeof(c[0]); ++i) y = y * r + c[i];
  y = y * (r * r) + r + 1.0;
  vint64 exponent;  // of 2^(n - 1)
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = (exponent + 1022) << 52;  // the magic number's bits shift out
  vec<double> scale;
  std::memcpy(&scale, &exponent, sizeof(scale));
  return x < -708.0 ? vec<double>{} : (y + y) * scale;
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
