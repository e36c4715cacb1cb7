// Diagonal Gaussian mixtures by EM, one per modality, differentiated through every step.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

enum class GmmInit {
  linspace,  ///< rows round(linspace(0, B - 1, K)), ties to even (release)
  kmeanspp   ///< k-means++ seeding (Arthur, Vassilvitskii 2007), numbers from Philox
};

struct GmmOptions {
  int64_t components = 8;        ///< K >= 1
  int64_t iterations = 5;        ///< EM steps, >= 0
  double variance_floor = 1e-4;  ///< > 0
  GmmInit init = GmmInit::linspace;
  uint64_t seed = 0;  ///< kmeanspp only
  /// kmeanspp only, backend memory: its seed and step are added to `seed`; null: nothing is.
  const RandomState* random = nullptr;
};

struct GmmShape {
  int64_t modalities = 0, batch = 0, width = 0;  ///< x is [M, B, d], B >= 1
  GmmOptions options;
};

/// EM for p(x) = sum_k pi_k N(x; mu_k, diag v_k) on each modality's rows.
///
///   start   mu_k = row choice[k] of x, v_k = max(biased variance of the batch, floor), pi_k = 1/K.
///           B < K: choice[k] = k mod B, whatever `init`.
///   E-step  gamma_nk = softmax_k(log max(pi_k, 1e-8) - (sum_j (x_nj - mu_kj)^2 / v_kj + log v_kj)
///   / 2) M-step  N_k = max(sum_n gamma_nk, 1e-6), pi_k = N_k / B, mu_k = sum_n gamma_nk x_n / N_k,
///           v_k = max(sum_n gamma_nk x_n^2 / N_k - mu_k^2, floor)
///   then one more E-step gives the posteriors; marginals_k = mean_n gamma_nk / max(its sum, 1e-8).
///
///   x [M, B, d];  weights [M, K];  means, variances [M, K, d];  posteriors [M, B, K];
///   marginals [M, K];  choice [M, K]: row of each component's start, kept for the backward pass.
///
/// EM runs in double in every build: it amplifies rounding errors from step to step. `state` is
/// work space in which the steps stay for the backward pass.
///
/// max(a, b) passes the gradient to a where a > b. round(linspace) is computed in float whatever
/// the build, step = (B - 1) / (K - 1), k < K / 2: k step, else (B - 1) - (K - 1 - k) step, as
/// PyTorch does; from exact arithmetic it differs in ties only, from K = 15 on. B = 1, B < K, equal
/// rows and zeros are all finite. Throws std::invalid_argument for B < 1, K < 1 or a span that does
/// not fit.
void gmm_forward(const Cpu&, const GmmShape&, In x, Out weights, Out means, Out variances,
                 Out posteriors, Out marginals, std::span<int32_t> choice, Scratch state);
void gmm_forward(const Cuda&, const GmmShape&, In x, Out weights, Out means, Out variances,
                 Out posteriors, Out marginals, std::span<int32_t> choice, Scratch state);

/// dx += the gradient through every step, the last E-step and the start (the chosen rows and the
/// batch variance; the choice itself is constant). Each d... has its output's shape or is empty: 0.
/// `state` as the forward pass left it; it is used up.
void gmm_backward(const Cpu&, const GmmShape&, In x, std::span<const int32_t> choice, In dweights,
                  In dmeans, In dvariances, In dposteriors, In dmarginals, InOut dx, Scratch state);
void gmm_backward(const Cuda&, const GmmShape&, In x, std::span<const int32_t> choice, In dweights,
                  In dmeans, In dvariances, In dposteriors, In dmarginals, InOut dx, Scratch state);

/// Size of the state in bytes.
size_t gmm_state_bytes(const Cpu&, const GmmShape&);
size_t gmm_state_bytes(const Cuda&, const GmmShape&);

}  // namespace decalign::inline DECALIGN_REAL
