#include "kernels/cuda/launch.h"
#include "kernels/weighted_sum.h"

namespace decalign::inline DECALIGN_REAL {

void weighted_sum_forward(const Cuda&, std::span<const In>, std::span<const double>, Out) {
  throw cuda_error("weighted_sum_forward: not there yet");
}

void weighted_sum_backward(const Cuda&, std::span<const double>, In, std::span<const InOut>) {
  throw cuda_error("weighted_sum_backward: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
