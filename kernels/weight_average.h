// Exponential moving average of the weights over the steps of training.
#pragma once

#include "kernels/adam.h"

namespace decalign::inline DECALIGN_REAL {

/// After an optimiser's step t = state->step >= 1:
///   average += max(1 - decay, 1 / t) (parameter - average)
/// the mean of all steps' weights (Polyak, Juditsky 1992) as long as t <= 1 / (1 - decay), from
/// then on exponential. The first step sets it, from any finite values.
///
///   decay in [0, 1);  state in backend memory, of which `step` is read;  parameter and average of
///   one length
/// Throws std::invalid_argument for a null state, lengths that differ or a decay out of range; Cpu
/// for a step below 1, too.
void weight_average(const Cpu&, double decay, const AdamState* state, In parameter, InOut average);
void weight_average(const Cuda&, double decay, const AdamState* state, In parameter, InOut average);

}  // namespace decalign::inline DECALIGN_REAL
