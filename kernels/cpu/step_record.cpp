#include "kernels/check/step_record.h"

namespace decalign::inline DECALIGN_REAL {

void step_record(const Cpu&, std::span<const In> terms, int64_t count, StepState* state, Out log) {
  check_step_record(terms, state, log);
  const size_t row = size_t(state->slot) * terms.size();
  if (row < log.size())
    for (size_t i = 0; i < terms.size(); ++i)
      log[row + i] = terms[i].empty() ? real(0) : terms[i][0];
  state->slot += 1;
  state->first += count;
  state->random.step += 1;
}

}  // namespace decalign::inline DECALIGN_REAL
