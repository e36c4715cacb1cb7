#include "kernels/conv1d.h"
#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

void conv1d_forward(const Cuda&, const Conv1dShape&, const Rows&, In, In, Out, Scratch) {
  throw cuda_error("conv1d_forward: not there yet");
}

void conv1d_backward(const Cuda&, const Conv1dShape&, const Rows&, In, In, In, InOut, InOut,
                     Scratch) {
  throw cuda_error("conv1d_backward: not there yet");
}

size_t conv1d_scratch_bytes(const Cuda&, const Conv1dShape&) {
  throw cuda_error("conv1d_scratch_bytes: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
