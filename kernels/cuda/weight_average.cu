#include "kernels/check/weight_average.h"
#include "kernels/cuda/launch.h"
#include "kernels/weight_average.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    average_kernel(int64_t n, double decay, const AdamState* state, const real* parameter,
                   real* average) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const real take = real(max(1 - decay, 1 / double(state->step)));
  average[i] += take * (parameter[i] - average[i]);
}

}  // namespace

void weight_average(const Cuda& be, double decay, const AdamState* state, In parameter,
                    InOut average) {
  check_weight_average(decay, state, parameter, average);
  const int64_t n = std::ssize(average);
  launch(be, average_kernel, unsigned(ceil_div<int64_t>(n, kThreads)), kThreads, 0, n, decay, state,
         parameter.data(), average.data());
}

}  // namespace decalign::inline DECALIGN_REAL
