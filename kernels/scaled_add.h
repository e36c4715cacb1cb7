// y += a x with the factor in backend memory: the way back of losses that compute their gradient on
// the way forward.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// y[i] += scale[0] * x[i].   scale [1], x and y of one length; y empty: nothing is done.
void scaled_add(const Cpu&, In scale, In x, InOut y);
void scaled_add(const Cuda&, In scale, In x, InOut y);

}  // namespace decalign::inline DECALIGN_REAL
