#include "kernels/cuda/launch.h"
#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;

__global__ void fill_kernel(int64_t n, real value, real* x) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) x[i] = value;
}

}  // namespace

void fill(const Cuda& be, real value, Out x) {
  const int64_t n = std::ssize(x);
  launch(be, fill_kernel, unsigned(ceil_div<int64_t>(n, kThreads)), kThreads, 0, n, value,
         x.data());
}

}  // namespace decalign::inline DECALIGN_REAL
