// Constant fill.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// x[i] = value for every i.
void fill(const Cpu&, real value, Out x);
void fill(const Cuda&, real value, Out x);

}  // namespace decalign::inline DECALIGN_REAL
