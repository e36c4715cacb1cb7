// How a loss reduces over its coordinates or pairs.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

enum class Reduction { sum, mean };

}  // namespace decalign::inline DECALIGN_REAL
