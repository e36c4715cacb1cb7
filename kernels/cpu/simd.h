// Vectors of `real` in the machine's widest registers, written with the compiler's vector
// extensions.
#pragma once

#include <cstring>
#include <limits>
#include <utility>

#include "kernels/types.h"

#ifdef __AVX512F__
#pragma GCC diagnostic push  // g++ 12 takes its own "undefined" registers for a mistake
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace decalign::inline DECALIGN_REAL {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#ifdef DECALIGN_F64
using lane_int = int64_t;
#else
using lane_int = int32_t;
#endif

typedef real vreal __attribute__((vector_size(kVectorBytes)));
typedef real vreal_unaligned
    __attribute__((vector_size(kVectorBytes), aligned(sizeof(real)), may_alias));
typedef lane_int vint __attribute__((vector_size(kVectorBytes)));

constexpr int64_t kLanes = kVectorBytes / int64_t(sizeof(real));

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

inline vreal load(const real* p) { return *reinterpret_cast<const vreal_unaligned*>(p); }
inline void store(real* p, vreal v) { *reinterpret_cast<vreal_unaligned*>(p) = v; }
inline vreal broadcast(real x) { return x - vreal{}; }  // x - 0 is x, for -0 too

/// The first `count` <= kLanes elements, the rest 0; memory beyond them is not touched.
inline vreal load_partial(const real* p, int64_t count) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  return (vreal)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), p);
#elif defined(__AVX512F__)
  return (vreal)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
#else
  if (count == kLanes) return load(p);
  vreal v{};
  std::memcpy(&v, p, size_t(count) * sizeof(real));
  return v;
#endif
}

/// The first `count` <= kLanes elements, the rest `fill`.
inline vreal load_partial(const real* p, int64_t count, real fill) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  return (vreal)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), __mmask8((1u << count) - 1), p);
#elif defined(__AVX512F__)
  return (vreal)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), __mmask16((1u << count) - 1), p);
#else
  vreal v = broadcast(fill);
  std::memcpy(&v, p, size_t(count) * sizeof(real));
  return v;
#endif
}

inline void store_partial(real* p, vreal v, int64_t count) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  _mm512_mask_storeu_pd(p, __mmask8((1u << count) - 1), (__m512d)v);
#elif defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), (__m512)v);
#else
  if (count == kLanes) return store(p, v);
  std::memcpy(p, &v, size_t(count) * sizeof(real));
#endif
}

/// p[0], p[stride], ..: `count` <= kLanes elements, the rest 0.
inline vreal load_strided(const real* p, int64_t stride, int64_t count) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  const __m512i at = _mm512_mul_epi32(lane, _mm512_set1_epi64(stride));
  return (vreal)_mm512_mask_i64gather_pd(_mm512_setzero_pd(), __mmask8((1u << count) - 1), at, p,
                                         8);
#elif defined(__AVX512F__)
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i at = _mm512_mullo_epi32(lane, _mm512_set1_epi32(int(stride)));
  return (vreal)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), __mmask16((1u << count) - 1), at, p,
                                         4);
#else
  vreal v{};
  for (int i = 0; i < int(count); ++i) v[i] = p[i * stride];
  return v;
#endif
}

namespace transpose_detail {

// Swaps the off-diagonal Step x Step blocks of every 2 Step x 2 Step block.
template <int Step, class V, int N, int... Lane>
[[gnu::always_inline]] inline void swap_blocks(V (&m)[N], std::integer_sequence<int, Lane...>) {
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    if (i & Step) continue;
    const V a = m[i], b = m[i + Step];
    m[i] = __builtin_shufflevector(a, b, (Lane & Step ? N + Lane - Step : Lane)...);
    m[i + Step] = __builtin_shufflevector(a, b, (Lane & Step ? N + Lane : Lane + Step)...);
  }
}

}  // namespace transpose_detail

/// m[i][j] becomes m[j][i]: N vectors of N lanes.
template <class V, int N>
[[gnu::always_inline]] inline void transpose(V (&m)[N]) {
  using Lanes = std::make_integer_sequence<int, N>;
  if constexpr (N > 8) transpose_detail::swap_blocks<8>(m, Lanes{});
  if constexpr (N > 4) transpose_detail::swap_blocks<4>(m, Lanes{});
  if constexpr (N > 2) transpose_detail::swap_blocks<2>(m, Lanes{});
  transpose_detail::swap_blocks<1>(m, Lanes{});
}

/// The keep bits of the kLanes elements that start at element j, a multiple of kLanes, of `bits`.
/// Reads no more than it needs, so that bits just written are forwarded.
inline uint32_t lane_bits(const uint8_t* bits, int64_t j) {
  if constexpr (kLanes == 16) {
    uint16_t word;
    std::memcpy(&word, bits + j / 8, 2);
    return word;
  }
  return uint32_t(bits[j / 8]) >> (j % 8);
}

/// Lane i of v where bit i is set, else 0.
inline vreal keep_lanes(uint32_t bits, vreal v) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  return (vreal)_mm512_maskz_mov_pd(__mmask8(bits), (__m512d)v);
#elif defined(__AVX512F__)
  return (vreal)_mm512_maskz_mov_ps(__mmask16(bits), (__m512)v);
#else
  vint lane;
  for (int i = 0; i < int(kLanes); ++i) lane[i] = lane_int(1) << i;
  return ((lane_int(bits) - vint{}) & lane) != 0 ? v : vreal{};
#endif
}

inline vreal vmax(vreal a, vreal b) { return a > b ? a : b; }  // b where a is NaN

/// Sums and maxima over the lanes, in a fixed order: halves are folded onto each other.
inline real sum_lanes(vreal v) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  return _mm512_reduce_add_pd((__m512d)v);
#elif defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  for (int half = int(kLanes) / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
#endif
}

inline real max_lanes(vreal v) {
#if defined(__AVX512F__) && defined(DECALIGN_F64)
  return _mm512_reduce_max_pd((__m512d)v);
#elif defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  for (int half = int(kLanes) / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  return v[0];
#endif
}

/// e^x, within 2 ulp. Results below 1.5 times the smallest normal number are 0, above the largest
/// inf; NaN stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r.
inline vreal vexp(vreal x) {
#if defined(__AVX512F__) && !defined(DECALIGN_F64)
  const __m512 at = _mm512_min_ps(_mm512_set1_ps(89.0f), (__m512)x);  // a NaN passes
  const __mmask16 normal = _mm512_cmp_ps_mask(at, _mm512_set1_ps(-86.98f), _CMP_NLT_UQ);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(at, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), at);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return (vreal)_mm512_maskz_scalef_ps(normal, p, n);
#else
#ifdef DECALIGN_F64
  constexpr real log2e = 1.4426950408889634, ln2_hi = 6.93145751953125e-1,
                 ln2_lo = 1.42860682030941723212e-6, magic = 6755399441055744.0;
  constexpr real lowest = -708.04, highest = 709.782712893384;
  constexpr int mantissa = 52, bias = 1023;
  constexpr real c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                        1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                        1.0 / 120,        1.0 / 24,        1.0 / 6,        0.5};
#else
  constexpr real log2e = 1.44269504f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f,
                 magic = 12582912.0f;
  constexpr real lowest = -86.98f, highest = 88.7228394f;
  constexpr int mantissa = 23, bias = 127;
  constexpr real c[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                        4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
#endif
  const vreal shifted = x * log2e + magic;  // n in the low bits
  const vreal n = shifted - magic;
  vreal r = x - n * ln2_hi;
  r = r - n * ln2_lo;
  vreal p = broadcast(c[0]);
#pragma GCC unroll 16
  for (size_t i = 1; i < sizeof(c) / sizeof(c[0]); ++i) p = p * r + c[i];
  p = p * (r * r) + r + real(1);
  vint exponent;  // of 2^(n - 1), so that the largest finite results do not overflow
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = (exponent + lane_int(bias - 1)) << mantissa;  // the magic number's bits shift out
  vreal scale;
  std::memcpy(&scale, &exponent, sizeof(scale));
  p = (p + p) * scale;
  p = x < lowest ? vreal{} : p;
  return x > highest ? broadcast(std::numeric_limits<real>::infinity()) : p;
#endif
}

}  // namespace decalign::inline DECALIGN_REAL
