// Temporal convolution of every modality's padded sequences into rows. See kernels/conv1d.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

struct Conv1dPart {
  Tensor x;       ///< [B, T, width]; may be default if the modality has no rows
  Tensor weight;  ///< [channels, width, kernel]; default: no projection, the first steps of x are
                  ///< copied, width = channels
};

/// Part m becomes the rows of modality m of the result [rows.total(), channels].
Tensor conv1d(Tape&, const Rows&, std::span<const Conv1dPart>, int64_t channels);

}  // namespace decalign::inline DECALIGN_REAL
