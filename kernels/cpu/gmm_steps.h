// The EM steps of a diagonal mixture, shared by the forward and the backward pass. In double in
// every build: EM amplifies rounding errors from step to step, and 1 / variance once more.
#pragma once

#include "kernels/cpu/parallel.h"
#include "kernels/gmm.h"

namespace decalign::inline DECALIGN_REAL::mixture {

constexpr double kCountFloor = 1e-6, kWeightFloor = 1e-8, kMassFloor = 1e-8;

// Parameters of one mixture: weights [K], means [K, d], variances [K, d].
struct Parameters {
  double *weights, *means, *variances;
};

// One modality's share of the problem and of the state.
struct Problem {
  int64_t batch = 0, components = 0, width = 0, iterations = 0;
  double floor = 0;
  double* x = nullptr;           // [B, d]
  double* history = nullptr;     // [iterations + 1, K (1 + 2 d)], the last one is the result
  double* posteriors = nullptr;  // [iterations + 1, B, K], of the parameters in history
  double* precision = nullptr;   // [K, d]
  double* log_scale = nullptr;   // [K]
  double* nearest = nullptr;     // [B], of k-means++
  // Gradients: of posteriors [B, K], of parameters, of x [B, d].
  double *dgamma = nullptr, *dparameters = nullptr, *dx = nullptr;

  Parameters parameters_at(double* p) const {
    return {p, p + components, p + components * (1 + width)};
  }
  Parameters parameters(int64_t step) const {
    return parameters_at(history + step * components * (1 + 2 * width));
  }
  double* gamma(int64_t step) const { return posteriors + step * batch * components; }
};

/// The rows at which modality m's means start: x [B, d], choice [K], nearest [B] is work space.
void choose_rows(const GmmShape& s, int64_t m, const real* x, double* nearest, int32_t* choice);

/// Modality m's part of `state`, which has just the size that is needed.
Problem problem(const GmmShape& s, int64_t m, Scratch state);

/// sum of log v
double log_product(const double* v, int64_t n);
/// Mean and biased variance of column j, not floored.
void column_moments(const Problem& q, int64_t j, double& mean, double& variance);
/// 1 / variances, left in the state.
void set_precisions(const Problem& q, const Parameters& p);
/// sum over n of gamma_nk
double count(const Problem& q, const double* gamma, int64_t k);

inline double given(In g, int64_t i) { return g.empty() ? 0 : double(g[size_t(i)]); }

}  // namespace decalign::inline DECALIGN_REAL::mixture
