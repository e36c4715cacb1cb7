// The fusion head's input: several [A, B, d] arrays side by side, zeros for inactive modalities.
#pragma once

#include <algorithm>

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct ConcatShape {
  int64_t batch = 0, width = 0;
  std::span<const uint8_t> active;  ///< [M]; 0: that modality's blocks of y are zeros

  int64_t modalities() const { return std::ssize(active); }
  int64_t active_count() const { return std::count(active.begin(), active.end(), uint8_t(1)); }
};

/// y[b, (p M + m) d + j] = parts[p][a, b, j] with m the a-th active modality. Each part [A, B, d]
/// holds the active modalities only; y [B, parts * M * d]. The spans of `active` (0 or 1) and
/// `parts` lie in host memory, what parts point at in the backend's.
void concat_forward(const Cpu&, const ConcatShape&, std::span<const In> parts, Out y);
void concat_forward(const Cuda&, const ConcatShape&, std::span<const In> parts, Out y);

/// dparts[p][a, b, j] += dy[b, (p M + m) d + j]; an empty part is skipped.
void concat_backward(const Cpu&, const ConcatShape&, In dy, std::span<const InOut> dparts);
void concat_backward(const Cuda&, const ConcatShape&, In dy, std::span<const InOut> dparts);

}  // namespace decalign::inline DECALIGN_REAL
