#include "kernels/cuda/launch.h"
#include "kernels/decoupling.h"

namespace decalign::inline DECALIGN_REAL {

void decoupling_forward(const Cuda&, const DecouplingShape&, In, In, Out, Out) {
  throw cuda_error("decoupling_forward: not there yet");
}

void decoupling_backward(const Cuda&, const DecouplingShape&, In, In, In, In, InOut, InOut) {
  throw cuda_error("decoupling_backward: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
