// Offsets that a recorded step refers to live as long as the step.
#pragma once

#include "autograd/tape.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

inline Rows keep_rows(Tape& tape, const Rows& rows) {
  return {rows.modalities, rows.batch, tape.keep<int64_t>(rows.first)};
}

}  // namespace decalign::inline DECALIGN_REAL
