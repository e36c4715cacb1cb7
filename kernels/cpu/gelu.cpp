#include "kernels/check/gelu.h"

#include <type_traits>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"
#include "kernels/gelu_tail.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements per task

#ifdef DECALIGN_F64
[[maybe_unused]] constexpr lane_int kHighBits = ~((lane_int(1) << 27) - 1);
#else
[[maybe_unused]] constexpr lane_int kHighBits = ~((lane_int(1) << 12) - 1);
#endif
constexpr real kFar = DECALIGN_GELU_FAR, kPole = DECALIGN_GELU_POLE;
constexpr real kTail[] = {DECALIGN_GELU_TAIL};

// With t = min(|x|, kFar): power = exp(-t^2 / 2), Phi(-t) = power * ratio. A NaN stays one. The
// rounding error of t^2, `rest`, is not negligible in the tail.
struct LowerTail {
  explicit LowerTail(vreal x) {
#if defined(__AVX512F__) && !defined(DECALIGN_F64)
    const __m512 v = _mm512_min_ps(_mm512_set1_ps(kFar), _mm512_abs_ps((__m512)x));
    const __m512 square = _mm512_mul_ps(v, v), rest = _mm512_fmsub_ps(v, v, square);
    // vexp without its limits, which kFar keeps.
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(square, _mm512_set1_ps(-0.72134752f)), 0);
    __m512 r = _mm512_mul_ps(square, _mm512_set1_ps(-0.5f));
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), r);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    r = _mm512_fnmadd_ps(rest, _mm512_set1_ps(0.5f), r);
    __m512 e = _mm512_set1_ps(1.9875691500e-4f);
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.3981999507e-3f));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(8.3334519073e-3f));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(4.1665795894e-2f));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.6666665459e-1f));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(5.0000001201e-1f));
    e = _mm512_fmadd_ps(_mm512_mul_ps(r, r), e, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    power = (vreal)_mm512_scalef_ps(e, n);
    // A reciprocal of 14 bits and a Newton step.
    const __m512 pole = _mm512_add_ps(v, _mm512_set1_ps(kPole)), guess = _mm512_rcp14_ps(pole);
    const vreal inverse =
        (vreal)_mm512_fmadd_ps(guess, _mm512_fnmadd_ps(pole, guess, _mm512_set1_ps(1.0f)), guess);
    t = (vreal)v;
#else
    t = x < 0 ? -x : x;
    t = t > kFar ? broadcast(kFar) : t;
    vint bits;  // `high` has half of t's bits, so that its square is exact
    std::memcpy(&bits, &t, sizeof(bits));
    bits &= kHighBits;
    vreal high;
    std::memcpy(&high, &bits, sizeof(high));
    const vreal square = t * t, rest = (high * high - square) + (t - high) * (high + t);
    const vreal rounded = vexp(square * real(-0.5));
    power = rounded - rounded * (rest * real(0.5));
    const vreal inverse = real(1) / (t + kPole);
#endif
    const vreal q = real(1) - (2 * kPole) * inverse;
    vreal p = broadcast(kTail[0]);
#pragma GCC unroll 32
    for (size_t i = 1; i < sizeof(kTail) / sizeof(kTail[0]); ++i) p = p * q + kTail[i];
    ratio = p * inverse;
  }
  vreal t, power, ratio;
};

vreal gelu(vreal x) {
  const LowerTail tail(x);
  return vmax(x, vreal{}) - tail.t * (tail.power * tail.ratio);
}

vreal gelu_slope(vreal x) {
  constexpr real kDensity = real(0.39894228040143267794);  // 1 / sqrt(2 pi)
  const LowerTail tail(x);
  const vreal below = tail.power * (tail.ratio - kDensity * tail.t);
  return x < 0 ? below : real(1) - below;
}

// f(i, lanes) for the vectors of [begin, end), with a constant number of lanes for whole ones.
template <class F>
void for_vectors(int64_t begin, int64_t end, F f) {
  for (; begin + kLanes <= end; begin += kLanes)
    f(begin, std::integral_constant<int64_t, kLanes>{});
  if (begin < end) f(begin, end - begin);
}

vreal load_lanes(const real* p, std::integral_constant<int64_t, kLanes>) { return load(p); }
vreal load_lanes(const real* p, int64_t lanes) { return load_partial(p, lanes); }
void store_lanes(real* p, vreal v, std::integral_constant<int64_t, kLanes>) { store(p, v); }
void store_lanes(real* p, vreal v, int64_t lanes) { store_partial(p, v, lanes); }

}  // namespace

void gelu_forward(const Cpu& be, In x, Out y) {
  check_gelu_forward(x, y);
  parallel_ranges(be, std::ssize(x), kGrain, [&](int64_t begin, int64_t end) {
    for_vectors(begin, end, [&](int64_t i, auto lanes) {
      store_lanes(y.data() + i, gelu(load_lanes(x.data() + i, lanes)), lanes);
    });
  });
}

void gelu_backward(const Cpu& be, In x, In dy, InOut dx) {
  check_gelu_backward(x, dy, dx);
  if (dx.empty()) return;
  parallel_ranges(be, std::ssize(x), kGrain, [&](int64_t begin, int64_t end) {
    for_vectors(begin, end, [&](int64_t i, auto lanes) {
      const vreal slope = gelu_slope(load_lanes(x.data() + i, lanes));
      const vreal d = load_lanes(dy.data() + i, lanes), before = load_lanes(dx.data() + i, lanes);
      store_lanes(dx.data() + i, before + d * slope, lanes);
    });
  });
}

}  // namespace decalign::inline DECALIGN_REAL
