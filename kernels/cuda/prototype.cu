#include "kernels/cuda/launch.h"
#include "kernels/prototype.h"

namespace decalign::inline DECALIGN_REAL {

void prototype_forward(const Cuda&, const PrototypeShape&, In, In, In, In, Out, Scratch) {
  throw cuda_error("prototype_forward: not there yet");
}

void prototype_backward(const Cuda&, const PrototypeShape&, In, In, In, In, In, InOut, InOut, InOut,
                        InOut, Scratch) {
  throw cuda_error("prototype_backward: not there yet");
}

size_t prototype_scratch_bytes(const Cuda&, const PrototypeShape&) {
  throw cuda_error("prototype_scratch_bytes: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
