// An op over ops that keeps only its input and runs again on the way back.
#pragma once

#include <functional>

#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

/// f(tape, x), whose intermediate results live in tape.inner() until the next call only; on the way
/// back f runs again there, this time recorded (Chen et al. 2016, "Training deep nets with
/// sublinear memory cost"). f must give the same bits both times: dropout does, being a function of
/// counters. Its other inputs, such as parameters, must be leaves over memory of the caller's; at
/// least one must want a gradient.
Tensor recomputed(Tape&, const Tensor& x, const std::function<Tensor(Tape&, const Tensor& x)>& f);

}  // namespace decalign::inline DECALIGN_REAL
