// Gaussian mixtures of all modalities as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/gmm.h"

namespace decalign::inline DECALIGN_REAL {

struct Mixture {
  Tensor weights;         ///< [M, K]
  Tensor means;           ///< [M, K, d]
  Tensor covariances;     ///< [M, K, d], full ones [M, K, d, d]
  Tensor posteriors;      ///< [M, B, K]
  Tensor marginals;       ///< [M, K]
  Tensor log_likelihood;  ///< [M]
};

/// x [M, B, d]. See kernels/gmm.h.
Mixture gmm(Tape&, const Tensor& x, const GmmOptions&);

}  // namespace decalign::inline DECALIGN_REAL
