#include "kernels/cuda/launch.h"
#include "kernels/pooling.h"

namespace decalign::inline DECALIGN_REAL {

void pooling_forward(const Cuda&, const Rows&, int64_t, In, In, Out) {
  throw cuda_error("pooling_forward: not there yet");
}

void pooling_backward(const Cuda&, const Rows&, int64_t, In, In, InOut) {
  throw cuda_error("pooling_backward: not there yet");
}

void temporal_pooling_forward(const Cuda&, const Rows&, const Rows&, int64_t, In, Out) {
  throw cuda_error("temporal_pooling_forward: not there yet");
}

void temporal_pooling_backward(const Cuda&, const Rows&, const Rows&, int64_t, In, InOut) {
  throw cuda_error("temporal_pooling_backward: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
