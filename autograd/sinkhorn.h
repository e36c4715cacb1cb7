// Multi-marginal optimal transport as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/sinkhorn.h"

namespace decalign::inline DECALIGN_REAL {

struct Transport {
  Tensor value;  ///< [1]
  std::span<real>
      report;  ///< [3]: transported mass, L1 marginal error, sweeps done; backend memory
};

/// cost [M (M - 1) / 2, K, K], marginals [M, K]. See kernels/sinkhorn.h.
Transport sinkhorn(Tape&, const Tensor& cost, const Tensor& marginals, const SinkhornOptions&);

}  // namespace decalign::inline DECALIGN_REAL
