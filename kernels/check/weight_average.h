// What weight_average asks of its arguments, on every backend.
#pragma once

#include "kernels/weight_average.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_weight_average(double decay, const AdamState* state, In parameter,
                                 InOut average) {
  expect(state != nullptr, "weight_average: no state");
  expect(decay >= 0 && decay < 1, "weight_average: decay must be in [0, 1)");
  expect(parameter.size() == average.size(),
         "weight_average: parameter and average differ in size");
}

}  // namespace decalign::inline DECALIGN_REAL
