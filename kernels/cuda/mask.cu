#include "kernels/cuda/launch.h"
#include "kernels/mask.h"

namespace decalign::inline DECALIGN_REAL {

void mask_rows_forward(const Cuda&, int64_t, In, In, Out) {
  throw cuda_error("mask_rows_forward: not there yet");
}

void mask_rows_backward(const Cuda&, int64_t, In, In, InOut) {
  throw cuda_error("mask_rows_backward: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
