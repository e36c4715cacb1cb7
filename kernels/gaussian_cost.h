// Transport cost between the diagonal Gaussian prototypes of every pair of modalities.
#pragma once

#include "kernels/backend.h"
#include "kernels/reduction.h"

namespace decalign::inline DECALIGN_REAL {

struct GaussianCostShape {
  int64_t modalities = 0, components = 0, width = 0;
  Reduction reduction = Reduction::mean;  ///< over the width
};

/// cost[(i, j), a, b] = red_d (mu_ia - mu_jb)^2 + red_d (v_ia + v_jb - 2 sqrt(v_ia v_jb + 1e-8))
/// for the pairs i < j in lexicographic order: (0, 1), (0, 2), ..., (1, 2), ... (squared
/// Bures-Wasserstein distance of diagonal Gaussians; the 1e-8 is the release's).
///
///   means, variances [M, K, d], variances >= 0;  cost [M (M - 1) / 2, K, K]
void gaussian_cost_forward(const Cpu&, const GaussianCostShape&, In means, In variances, Out cost);
void gaussian_cost_forward(const Cuda&, const GaussianCostShape&, In means, In variances, Out cost);

void gaussian_cost_backward(const Cpu&, const GaussianCostShape&, In means, In variances, In dcost,
                            InOut dmeans, InOut dvariances);
void gaussian_cost_backward(const Cuda&, const GaussianCostShape&, In means, In variances, In dcost,
                            InOut dmeans, InOut dvariances);

}  // namespace decalign::inline DECALIGN_REAL
