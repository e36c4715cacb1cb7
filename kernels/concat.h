// The fusion head's input: several [M, B, d] arrays side by side.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct ConcatShape {
  int64_t modalities = 0, batch = 0, width = 0;
  std::span<const uint8_t> active;  ///< [modalities]; 0: that modality's blocks are zeros
};

/// y[b, (p M + m) d + j] = parts[p][m, b, j]. Each part [M, B, d], y [B, parts * M * d]. The spans
/// of `active` and `parts` lie in host memory, what parts point at in the backend's.
void concat_forward(const Cpu&, const ConcatShape&, std::span<const In> parts, Out y);
void concat_forward(const Cuda&, const ConcatShape&, std::span<const In> parts, Out y);

/// dparts[p][m, b, j] += dy[b, (p M + m) d + j] for active m; an empty part is skipped.
void concat_backward(const Cpu&, const ConcatShape&, In dy, std::span<const InOut> dparts);
void concat_backward(const Cuda&, const ConcatShape&, In dy, std::span<const InOut> dparts);

}  // namespace decalign::inline DECALIGN_REAL
