// Prototype calibration: every sample against the other modalities' prototypes.
#pragma once

#include "kernels/backend.h"
#include "kernels/reduction.h"

namespace decalign::inline DECALIGN_REAL {

struct PrototypeOptions {
  Reduction feature = Reduction::mean;  ///< over the width
  Reduction pairs = Reduction::mean;    ///< over the M (M - 1) ordered pairs
  bool mahalanobis = false;             ///< divide by max(v_j, variance_floor)
  double variance_floor = 1e-4;
};

struct PrototypeShape {
  int64_t modalities = 0, batch = 0, components = 0, width = 0;
  PrototypeOptions options;
};

/// value = red over i != j of mean_n sum_k w_i[n, k] red_d (x_i[n] - mu_j[k])^2 (/ max(v_j[k],
/// floor)).
///
///   x [M, B, d];  posteriors w [M, B, K];  means, variances [M, K, d] (variances are read only
///   with mahalanobis, else they may be empty);  value [1]. One modality or no batch: 0.
void prototype_forward(const Cpu&, const PrototypeShape&, In x, In posteriors, In means,
                       In variances, Out value, Scratch);
void prototype_forward(const Cuda&, const PrototypeShape&, In x, In posteriors, In means,
                       In variances, Out value, Scratch);

void prototype_backward(const Cpu&, const PrototypeShape&, In x, In posteriors, In means,
                        In variances, In dvalue, InOut dx, InOut dposteriors, InOut dmeans,
                        InOut dvariances, Scratch);
void prototype_backward(const Cuda&, const PrototypeShape&, In x, In posteriors, In means,
                        In variances, In dvalue, InOut dx, InOut dposteriors, InOut dmeans,
                        InOut dvariances, Scratch);

/// Work space that either direction needs, in bytes.
size_t prototype_scratch_bytes(const Cpu&, const PrototypeShape&);
size_t prototype_scratch_bytes(const Cuda&, const PrototypeShape&);

}  // namespace decalign::inline DECALIGN_REAL
