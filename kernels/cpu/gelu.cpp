#include "kernels/gelu.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements per task

// P(q) with q = (t - a) / (t + a) interpolates Phi(-t) exp(t^2 / 2) (t + a) in Chebyshev nodes for
// 0 <= t <= kFar, highest power first; relative error 1.3e-8 (float), 9e-17 (double).
#ifdef DECALIGN_F64
constexpr real kFar = 39, kPole = 4.5;
constexpr lane_int kHighBits = ~((lane_int(1) << 27) - 1);
constexpr real kTail[] = {
    -2.0226957499977059e-9, -8.9879216652082821e-9, 1.5044291753208875e-9,  6.9614901410420998e-8,
    5.494536571026644e-8,   -3.8085875558139355e-7, -4.9466756833566796e-7, 2.1450660010663203e-6,
    3.1874611727265271e-6,  -1.4237161483365034e-5, -1.5932234388743217e-5, 1.1204309427540524e-4,
    6.3809858036614731e-6,  -9.1774657250720197e-4, 1.7488305873436488e-3,  4.2236133872341533e-3,
    -3.3871326178422704e-2, 1.113825965698589e-1,   -2.5314179995093035e-1, 4.4645251705568538e-1,
    -6.4025776025261743e-1, 7.6323052897020311e-1};
#else
constexpr real kFar = 14, kPole = 4;
constexpr lane_int kHighBits = ~((lane_int(1) << 12) - 1);
constexpr real kTail[] = {-1.20184401e-4f, 2.0126173e-4f,  1.57231788e-3f,  -3.5261837e-3f,
                          -7.5292507e-3f,  6.04066887e-2f, -1.86522685e-1f, 3.87136684e-1f,
                          -6.07896618e-1f, 7.55285138e-1f};
#endif

// With t = min(|x|, kFar): power = exp(-t^2 / 2), Phi(-t) = power * ratio.
struct LowerTail {
  explicit LowerTail(vreal x) : t(x < 0 ? -x : x) {
    t = t > kFar ? broadcast(kFar) : t;  // a NaN stays
    // exp(-t^2 / 2) needs the square's rounding error: high * high is exact.
    vint bits;
    std::memcpy(&bits, &t, sizeof(bits));
    bits &= kHighBits;
    vreal high;
    std::memcpy(&high, &bits, sizeof(high));
    const vreal low = t - high, square = t * t;
    const vreal rest = (high * high - square) + low * (high + t);
    const vreal rounded = vexp(square * real(-0.5));
    power = rounded - rounded * (rest * real(0.5));
    const vreal inverse = real(1) / (t + kPole), q = real(1) - (2 * kPole) * inverse;
    vreal p = broadcast(kTail[0]);
#pragma GCC unroll 32
    for (size_t i = 1; i < sizeof(kTail) / sizeof(kTail[0]); ++i) p = p * q + kTail[i];
    ratio = p * inverse;
  }
  vreal t, power, ratio;
};

vreal gelu(vreal x) {
  const LowerTail tail(x);
  const vreal below = tail.t * (tail.power * tail.ratio);
  return x < 0 ? -below : x - below;
}

vreal gelu_slope(vreal x) {
  constexpr real kDensity = real(0.39894228040143267794);  // 1 / sqrt(2 pi)
  const LowerTail tail(x);
  const vreal below = tail.power * (tail.ratio - kDensity * tail.t);
  return x < 0 ? below : real(1) - below;
}

}  // namespace

void gelu_forward(const Cpu& be, In x, Out y) {
  expect(x.size() == y.size(), "gelu: x and y differ in size");
  parallel_ranges(be, std::ssize(x), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kLanes) {
      const int64_t lanes = std::min(end - i, kLanes);
      store_partial(y.data() + i, gelu(load_partial(x.data() + i, lanes)), lanes);
    }
  });
}

void gelu_backward(const Cpu& be, In x, In dy, InOut dx) {
  expect(x.size() == dy.size(), "gelu: x and dy differ in size");
  expect(dx.empty() || dx.size() == x.size(), "gelu: x and dx differ in size");
  if (dx.empty()) return;
  parallel_ranges(be, std::ssize(x), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kLanes) {
      const int64_t lanes = std::min(end - i, kLanes);
      const vreal slope = gelu_slope(load_partial(x.data() + i, lanes));
      store_partial(dx.data() + i,
                    load_partial(dx.data() + i, lanes) + load_partial(dy.data() + i, lanes) * slope,
                    lanes);
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
