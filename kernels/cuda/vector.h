// Four neighbouring elements at once: 16-byte accesses.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

struct alignas(16) Four {
  real v[4];
};

/// True if Four may be read and written at every address that is 4 elements from one of these.
template <class... T>
bool by_fours(const T*... arrays) {
  return ((reinterpret_cast<uintptr_t>(arrays) % alignof(Four) == 0) && ...);
}

}  // namespace decalign::inline DECALIGN_REAL
