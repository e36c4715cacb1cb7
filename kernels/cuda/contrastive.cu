#include "kernels/contrastive.h"
#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

void contrastive_forward(const Cuda&, const ContrastiveShape&, In, std::span<const int32_t>, Out,
                         Out, Scratch) {
  throw cuda_error("contrastive_forward: not there yet");
}

size_t contrastive_scratch_bytes(const Cuda&, const ContrastiveShape&) {
  throw cuda_error("contrastive_scratch_bytes: not there yet");
}

}  // namespace decalign::inline DECALIGN_REAL
