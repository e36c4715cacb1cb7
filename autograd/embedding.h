// Embedding. See kernels/embedding.h.
#pragma once

#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

struct EmbeddingPart {
  std::span<const int32_t> ids;  ///< [rows], rows of `table`; the host's, copied
  Tensor table;                  ///< [entries, width]
  int32_t padding = -1;          ///< rows with this id pass no gradient; -1: none
};

/// The sum over the parts of table[ids[r]]: [rows, width]. At least one part.
Tensor embedding(Tape&, std::span<const EmbeddingPart>);

}  // namespace decalign::inline DECALIGN_REAL
