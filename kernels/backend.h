// Where a kernel runs. The first argument of every kernel selects the backend by overload.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// The host. Results have the same bits for every number of threads.
struct Cpu {
  int threads = 0;  ///< OpenMP threads; 0: OpenMP's own default
};
struct Cuda;  // stream and cuBLAS handle, both the caller's

/// How a Cuda backend (its member `precision`) multiplies in matmul, conv1d, feed_forward and
/// attention: in float, or on tensor cores, which round both factors to tf32 (10 bits behind the
/// point) or bf16 (7 bits) and add in float. Everything else is computed as ever; so are
/// attention's heads of at most 16 columns, which spend their time on exponentials, and the build
/// in double.
enum class Precision { fp32, tf32, bf16 };

}  // namespace decalign::inline DECALIGN_REAL
