#include "kernels/cuda/launch.h"
#include "kernels/distribution_encoder.h"

namespace decalign::inline DECALIGN_REAL {

void distribution_encoder_forward(const Cuda&, const DistributionEncoderShape&,
                                  std::span<const DistributionEncoderGroup>, In, Out, Out,
                                  std::span<double>) {
  throw cuda_error("distribution_encoder_forward: not there yet");
}

void distribution_encoder_backward(const Cuda&, const DistributionEncoderShape&,
                                   std::span<const DistributionEncoderGroup>, In,
                                   std::span<const double>, In, In, InOut, Scratch) {
  throw cuda_error("distribution_encoder_backward: not there yet");
}

size_t distribution_encoder_scratch_bytes(const Cuda&, const DistributionEncoderShape&, int64_t) {
  throw cuda_error("distribution_encoder_scratch_bytes: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
