#include "kernels/check/gelu.h"
#include "kernels/cuda/launch.h"
#include "kernels/gelu_tail.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kItems = 4;  // elements per thread, kThreads apart

// With t = min(|x|, far): power = exp(-t^2 / 2), Phi(-t) = power * ratio. A NaN stays one. The
// rounding error of t^2, `rest`, is not negligible in the tail.
struct LowerTail {
  __device__ explicit LowerTail(real x) {
    constexpr real kFar = DECALIGN_GELU_FAR, kPole = DECALIGN_GELU_POLE;
    constexpr real kTail[] = {DECALIGN_GELU_TAIL};
    t = x < 0 ? -x : x;
    t = t > kFar ? kFar : t;
    const real square = t * t, rest = fma(t, t, -square);
    const real rounded = exp(square * real(-0.5));
    power = rounded - rounded * (rest * real(0.5));
    const real inverse = real(1) / (t + kPole), q = real(1) - (2 * kPole) * inverse;
    real p = kTail[0];
#pragma unroll
    for (int i = 1; i < int(sizeof(kTail) / sizeof(real)); ++i) p = p * q + kTail[i];
    ratio = p * inverse;
  }
  real t, power, ratio;
};

__device__ real gelu(real x) {
  const LowerTail tail(x);
  return (x < 0 ? real(0) : x) - tail.t * (tail.power * tail.ratio);
}

__device__ real gelu_slope(real x) {
  constexpr real kDensity = real(0.39894228040143267794);  // 1 / sqrt(2 pi)
  const LowerTail tail(x);
  const real below = tail.power * (tail.ratio - kDensity * tail.t);
  return x < 0 ? below : real(1) - below;
}

// x and y may be the same array.
__global__ void __launch_bounds__(kThreads) forward_kernel(int64_t n, const real* x, real* y) {
  const int64_t first = int64_t(blockIdx.x) * (kThreads * kItems) + threadIdx.x;
  real v[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    if (first + i * kThreads < n) v[i] = x[first + i * kThreads];
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    if (first + i * kThreads < n) y[first + i * kThreads] = gelu(v[i]);
}

__global__ void __launch_bounds__(kThreads)
    backward_kernel(int64_t n, const real* x, const real* dy, real* dx) {
  const int64_t first = int64_t(blockIdx.x) * (kThreads * kItems) + threadIdx.x;
  real v[kItems], d[kItems], before[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    if (const int64_t at = first + i * kThreads; at < n) {
      v[i] = x[at];
      d[i] = dy[at];
      before[i] = dx[at];
    }
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    if (const int64_t at = first + i * kThreads; at < n)
      dx[at] = before[i] + d[i] * gelu_slope(v[i]);
}

unsigned blocks(int64_t n) { return unsigned(ceil_div<int64_t>(n, kThreads * kItems)); }

}  // namespace

void gelu_forward(const Cuda& be, In x, Out y) {
  check_gelu_forward(x, y);
  launch(be, forward_kernel, blocks(std::ssize(x)), kThreads, 0, std::ssize(x), x.data(), y.data());
}

void gelu_backward(const Cuda& be, In x, In dy, InOut dx) {
  check_gelu_backward(x, dy, dx);
  launch(be, backward_kernel, blocks(std::ssize(dx)), kThreads, 0, std::ssize(dx), x.data(),
         dy.data(), dx.data());
}

}  // namespace decalign::inline DECALIGN_REAL
