// Moments of a sample as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/sample_moments.h"

namespace decalign::inline DECALIGN_REAL {

struct SampleMoments {
  Tensor mean, variance, skewness;  ///< [d]
  Tensor covariance;                ///< [d, d], or none
};

struct SampleMomentsOptions {
  bool covariance = false;
  int64_t correction = 1;
  double variance_floor = 0;
};

/// x [N, d]. See kernels/sample_moments.h.
SampleMoments sample_moments(Tape&, const Tensor& x, const SampleMomentsOptions& = {});

}  // namespace decalign::inline DECALIGN_REAL
