// What a recorded training step counts and leaves behind, all in the backend's memory.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// Where a run of steps is.
struct StepState {
  RandomState random;  ///< of the step's dropout masks
  int64_t first = 0;   ///< of the batch's samples in the epoch's order: see gather.h
  int64_t slot = 0;    ///< of the step in the log
};

/// At most so many terms in one call.
inline constexpr int64_t kStepTerms = 16;

/// log[slot, i] = terms[i][0]; then slot += 1, first += count, random.step += 1.
///
///   terms  spans of one element, an empty one is logged as 0;  log [slots, terms], a step beyond
///   its end is counted and not logged.   Throws std::invalid_argument for a span that does not
///   fit.
void step_record(const Cpu&, std::span<const In> terms, int64_t count, StepState*, Out log);
void step_record(const Cuda&, std::span<const In> terms, int64_t count, StepState*, Out log);

}  // namespace decalign::inline DECALIGN_REAL
