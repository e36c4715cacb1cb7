#include "kernels/check/step_record.h"
#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

__global__ void step_record_kernel(
    const __grid_constant__ ParameterList<const real*, kStepTerms> terms, int64_t count,
    StepState* state, int64_t slots, real* log) {
  const int i = int(threadIdx.x);
  const int64_t slot = state->slot;
  if (i < terms.count && slot < slots)
    // scattered: single numbers of several arrays
    log[slot * terms.count + i] = terms.item[i] ? *terms.item[i] : real(0);
  __syncwarp();  // every lane has read the slot
  if (i > 0) return;
  state->slot = slot + 1;
  state->first += count;
  state->random.step += 1;
}

}  // namespace

void step_record(const Cuda& be, std::span<const In> terms, int64_t count, StepState* state,
                 Out log) {
  check_step_record(terms, state, log);
  ParameterList<const real*, kStepTerms> list;
  for (const In& term : terms) list.item[list.count++] = pointer(term);
  launch(be, step_record_kernel, 1, 32, 0, list, count, state, std::ssize(log) / list.count,
         log.data());
}

}  // namespace decalign::inline DECALIGN_REAL
