// Where a kernel runs. The first argument of every kernel selects the backend by overload.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// The host. Results have the same bits for every number of threads.
struct Cpu {
  int threads = 0;  ///< OpenMP threads; 0: OpenMP's own default
};
struct Cuda;  // stream and cuBLAS handle, both the caller's

}  // namespace decalign::inline DECALIGN_REAL
