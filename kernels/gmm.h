// Gaussian mixtures by EM, diagonal or full, one per modality, differentiated through every step.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

enum class GmmInit {
  linspace,  ///< rows round(linspace(0, B - 1, K)), ties to even (release)
  kmeanspp   ///< k-means++ seeding (Arthur, Vassilvitskii 2007), numbers from Philox
};
enum class GmmCovariance { diagonal, full };
enum class GmmGradient {
  every_step,  ///< the exact derivative of all that ran
  last_step    ///< of the last M-step and what follows it, its posteriors taken for constants
};
enum class GmmArithmetic {
  direct,   ///< (x - mu)^2 / v in double
  products  ///< diagonal: matrix products of the standardised [x^2, x] in `real`
};

struct GmmOptions {
  int64_t components = 8;        ///< K >= 1
  int64_t iterations = 5;        ///< EM steps, >= 0
  double variance_floor = 1e-4;  ///< > 0
  GmmInit init = GmmInit::linspace;
  uint64_t seed = 0;  ///< kmeanspp only
  /// kmeanspp only, backend memory: its seed and step are added to `seed`; null: nothing is.
  const RandomState* random = nullptr;
  GmmCovariance covariance = GmmCovariance::diagonal;
  double ridge = 1e-3;  ///< full only, >= 0: share of the mean variance
  GmmGradient gradient = GmmGradient::every_step;
  GmmArithmetic arithmetic = GmmArithmetic::direct;
};

struct GmmShape {
  int64_t modalities = 0, batch = 0, width = 0;  ///< x is [M, B, d], B >= 1
  GmmOptions options;
};

/// EM for p(x) = sum_k pi_k N(x; mu_k, Sigma_k) on each modality's rows; Sigma_k = diag v_k or
/// full.
///
///   start   mu_k = row choice[k] of x, pi_k = 1/K.  B < K: choice[k] = k mod B, whatever `init`.
///           diagonal: v_k = max(biased variance of the batch, floor)
///           full: Sigma_k = biased covariance of the batch + rho I,
///           rho = ridge * mean over d of the batch's biased variances + floor
///   E-step  gamma_nk = softmax_k l_nk,
///           l_nk = log max(pi_k, 1e-8) - ((x_n - mu_k)^T Sigma_k^-1 (x_n - mu_k) + log |Sigma_k|)
///           / 2
///   M-step  N_k = max(sum_n gamma_nk, 1e-6), pi_k = N_k / B, mu_k = sum_n gamma_nk x_n / N_k,
///           diagonal: v_k = max(sum_n gamma_nk x_n^2 / N_k - mu_k^2, floor)
///           full: Sigma_k = sum_n gamma_nk (x_n - mu_k) (x_n - mu_k)^T / N_k + rho I; a component
///           whose posteriors sum to less than 1e-6 keeps mu_k and Sigma_k of the step before
///   then one more E-step gives posteriors, marginals_k = mean_n gamma_nk / max(its sum, 1e-8) and
///   log_likelihood = mean_n log sum_k exp(l_nk) - d/2 log(2 pi). Large problems leave that E-step
///   out where none of the three is asked for (empty spans).
///
///   x [M, B, d];  weights [M, K];  means [M, K, d];  covariances [M, K, d], full: [M, K, d, d];
///   posteriors [M, B, K], marginals [M, K], log_likelihood [M]: each may be empty;
///   choice [M, K]: row of each component's start, kept for the backward pass.
///
/// rho bounds the condition of every Sigma_k, so that B < d, B < K, B = 1, equal rows and zeros are
/// all finite; it is a part of the definition, not a safeguard.
///
/// EM runs in double in every build: it amplifies rounding errors from step to step. The exception
/// are diagonal mixtures where GmmArithmetic::products is asked for: columns are shifted and scaled
/// to mean 0 and variance 1, and products of `real`, on Cuda whatever its precision, are summed in
/// double every thousand rows. Logits and a variance then have an error of about eps mu^2 / v, in
/// standardised columns, which is large where a component is much narrower than the batch; and the
/// floor is at least one rounding error of the batch's variance. `state` is work space in which the
/// steps' parameters stay for the backward pass; posteriors stay there too only in the direct
/// diagonal path.
///
/// max(a, b) passes the gradient to a where a > b. round(linspace) is computed in float whatever
/// the build, step = (B - 1) / (K - 1), k < K / 2: k step, else (B - 1) - (K - 1 - k) step, as
/// PyTorch does; from exact arithmetic it differs in ties only, from K = 15 on. Throws
/// std::invalid_argument for B < 1, K < 1 or a span that does not fit.
void gmm_forward(const Cpu&, const GmmShape&, In x, Out weights, Out means, Out covariances,
                 Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                 Scratch state);
void gmm_forward(const Cuda&, const GmmShape&, In x, Out weights, Out means, Out covariances,
                 Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                 Scratch state);

/// dx += the gradient through every step, the last E-step and the start (the chosen rows and the
/// batch variance; the choice itself is constant), or with GmmGradient::last_step that through the
/// last E-step and the last M-step (if there is none, the start). Each d... has its output's shape
/// or is empty: 0. dcovariances need not be symmetric: (D + D^T) / 2 counts. `state` as the forward
/// pass left it; it is used up.
void gmm_backward(const Cpu&, const GmmShape&, In x, std::span<const int32_t> choice, In dweights,
                  In dmeans, In dcovariances, In dposteriors, In dmarginals, In dlog_likelihood,
                  InOut dx, Scratch state);
void gmm_backward(const Cuda&, const GmmShape&, In x, std::span<const int32_t> choice, In dweights,
                  In dmeans, In dcovariances, In dposteriors, In dmarginals, In dlog_likelihood,
                  InOut dx, Scratch state);

/// Size of the state in bytes.
size_t gmm_state_bytes(const Cpu&, const GmmShape&);
size_t gmm_state_bytes(const Cuda&, const GmmShape&);

}  // namespace decalign::inline DECALIGN_REAL
