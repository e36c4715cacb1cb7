// What step_record asks of its arguments, on every backend.
#pragma once

#include "kernels/step_record.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_step_record(std::span<const In> terms, const StepState* state, Out log) {
  expect(state != nullptr, "step_record: no state");
  expect(!terms.empty() && std::ssize(terms) <= kStepTerms, "step_record: number of terms");
  expect(log.size() % terms.size() == 0, "step_record: log must be [slots, terms]");
  for (const In& term : terms)
    expect(term.size() <= 1, "step_record: every term must have one element or none");
}

}  // namespace decalign::inline DECALIGN_REAL
