#include "kernels/cuda/launch.h"
#include "kernels/matmul.h"

namespace decalign::inline DECALIGN_REAL {

void matmul_forward(const Cuda&, const MatmulShape&, std::span<const MatmulGroup>, In, Out,
                    Scratch) {
  throw cuda_error("matmul_forward: not there yet");
}

void matmul_backward(const Cuda&, const MatmulShape&, std::span<const MatmulGroup>, In, In, In,
                     InOut, Scratch) {
  throw cuda_error("matmul_backward: not there yet");
}

size_t matmul_scratch_bytes(const Cuda&, const MatmulShape&, std::span<const MatmulGroup>) {
  throw cuda_error("matmul_scratch_bytes: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
