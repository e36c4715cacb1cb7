#include "kernels/cuda/launch.h"
#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;

__global__ void scaled_add_kernel(int64_t n, const real* scale, const real* x, real* y) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) y[i] += scale[0] * x[i];
}

}  // namespace

void scaled_add(const Cuda& be, In scale, In x, InOut y) {
  expect(scale.size() == 1, "scaled_add: scale must have one element");
  expect(y.empty() || x.size() == y.size(), "scaled_add: x and y differ in size");
  const int64_t n = std::ssize(y);
  launch(be, scaled_add_kernel, unsigned(ceil_div<int64_t>(n, kThreads)), kThreads, 0, n,
         scale.data(), x.data(), y.data());
}

}  // namespace decalign::inline DECALIGN_REAL
