#include "kernels/weight_average.h"

#include <algorithm>

#include "kernels/check/weight_average.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {

void weight_average(const Cpu& be, double decay, const AdamState* state, In parameter,
                    InOut average) {
  check_weight_average(decay, state, parameter, average);
  expect(state->step >= 1, "weight_average: the step is not counted from 1");
  const real take = real(std::max(1 - decay, 1 / double(state->step)));
  parallel_ranges(be, std::ssize(average), 1 << 16, [&](int64_t begin, int64_t end) {
    const real* p = parameter.data();
    real* a = average.data();
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) a[i] += take * (p[i] - a[i]);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
