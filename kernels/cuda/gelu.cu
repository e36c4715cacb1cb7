#include "kernels/cuda/launch.h"
#include "kernels/gelu.h"

namespace decalign::inline DECALIGN_REAL {

void gelu_forward(const Cuda&, In, Out) { throw cuda_error("gelu_forward: not there yet"); }

void gelu_backward(const Cuda&, In, In, InOut) { throw cuda_error("gelu_backward: not there yet"); }

}  // namespace decalign::inline DECALIGN_REAL
