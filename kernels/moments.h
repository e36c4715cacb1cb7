// Matching of mean, covariance and skewness between modalities.
#pragma once

#include "kernels/backend.h"
#include "kernels/reduction.h"

namespace decalign::inline DECALIGN_REAL {

struct MomentsShape {
  int64_t modalities = 0, batch = 0, width = 0;  ///< z is [M, B, p]
  Reduction reduction = Reduction::mean;
};

/// Statistics of each modality and their distance over the pairs i < j.
///
///   z [M, B, p], or z + rest where `rest` is not empty: what rounding took from z, which matters
///   because z may vary little about a large mean;
///   mean [M, p];  covariance [M, p, p] over max(B - 1, 1);
///   skewness [M, p] = mean_n (z - mean)^3 / max(mean_n (z - mean)^2, 1e-6)^1.5;  value [1]:
///   Reduction::mean  mean over pairs of MSE(mean) + MSE(covariance) + MSE(skewness) (release)
///   Reduction::sum   1 / (M (M - 1)) * sum over pairs of the three squared norms (paper, eq. 9)
///
/// The statistics are kept for the backward pass. The gradient is dz + drest, where `drest` is not
/// empty: the bias behind z sees its sum over the batch, in which most of it cancels. One modality
/// or no batch: 0.
void moments_forward(const Cpu&, const MomentsShape&, In z, In rest, Out mean, Out covariance,
                     Out skewness, Out value, Scratch);
void moments_forward(const Cuda&, const MomentsShape&, In z, In rest, Out mean, Out covariance,
                     Out skewness, Out value, Scratch);

void moments_backward(const Cpu&, const MomentsShape&, In z, In rest, In mean, In covariance,
                      In skewness, In dvalue, InOut dz, InOut drest, Scratch);
void moments_backward(const Cuda&, const MomentsShape&, In z, In rest, In mean, In covariance,
                      In skewness, In dvalue, InOut dz, InOut drest, Scratch);

/// Work space that either direction needs, in bytes.
size_t moments_scratch_bytes(const Cpu&, const MomentsShape&);
size_t moments_scratch_bytes(const Cuda&, const MomentsShape&);

}  // namespace decalign::inline DECALIGN_REAL
