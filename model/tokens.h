// Token ids of a batch as the rows that the text encoder reads.
#pragma once

#include <vector>

#include "autograd/tape.h"
#include "kernels/attention.h"
#include "kernels/rows.h"
#include "model/batch.h"

namespace decalign::inline DECALIGN_REAL {

/// 1 where a token is attended, [B, T].
std::vector<uint8_t> attended_tokens(const BatchModality& text, int64_t batch);

/// One sequence per sample, and what its queries may see.
struct TokenRows {
  Rows rows;                                      ///< one modality; in the tape's memory
  std::vector<int32_t> ids, segments, positions;  ///< [R]
  std::vector<KeyRange> keys;                     ///< [B, ranges_per_sequence]
  int64_t ranges_per_sequence = 1;
};

/// Packed: only attended tokens become rows, at the positions they have in their clip. Otherwise
/// every step is a row, and the keys are runs of attended tokens; a clip without any has no keys.
TokenRows token_rows(Tape&, const BatchModality& text, int64_t batch, bool packed);

}  // namespace decalign::inline DECALIGN_REAL
