// Where a batch's sequences lie: rows after the projection, their mask, and the context of every
// query sequence.
#pragma once

#include "autograd/tape.h"
#include "kernels/attention.h"
#include "kernels/dropout.h"
#include "kernels/rows.h"
#include "model/batch.h"

namespace decalign::inline DECALIGN_REAL {

/// Rows of the given lengths [M B], in the tape's memory.
Rows make_rows(Tape& tape, int64_t modalities, int64_t batch, const std::vector<int64_t>& lengths);

/// 1 where a row's step of x has any non-zero entry, or its token is attended, 0 elsewhere; 1
/// throughout for modalities with `masked` false. x: the inputs' features on the device.
std::span<real> zero_step_mask(Tape& tape, const Rows& rows,
                               std::span<const BatchModality* const> inputs, std::span<const In> x,
                               const std::vector<bool>& masked);

/// The keys of every sequence. Cross attention: modality m sees the rows of all others, copied into
/// one context array (each transformer drops its own elements), m after m.
struct Context {
  std::vector<RowCopy> copies;   ///< s -> context
  std::vector<KeyRange> ranges;  ///< [M B, M - 1] into the context
  std::vector<int64_t> begin;    ///< [M + 1] first context row of modality m's transformer
};
Context cross_context(const Rows& rows);

}  // namespace decalign::inline DECALIGN_REAL
