// One EM step of a diagonal mixture, shared by the forward and the backward pass.
#pragma once

#include "kernels/cpu/parallel.h"
#include "kernels/gmm.h"

namespace decalign::inline DECALIGN_REAL::mixture {

constexpr double kCountFloor = 1e-6, kWeightFloor = 1e-8, kMassFloor = 1e-8;

// Parameters of one mixture: weights [K], means [K, d], variances [K, d].
template <class T>
struct Parameters {
  T *weights, *means, *variances;
};

// One modality's share of the problem and of the scratch.
struct Problem {
  int64_t batch, components, width;
  const real* x;
  real* precision;  // [K, d]
  real* log_scale;  // [K]
};

inline int64_t history_size(const GmmShape& s) { return s.options.components * (1 + 2 * s.width); }

template <class T>
Parameters<T> step_parameters(const GmmShape& s, T* history, int64_t m, int64_t step) {
  const int64_t k = s.options.components, d = s.width;
  T* p = history + (m * s.options.iterations + step) * history_size(s);
  return {p, p + k, p + k + k * d};
}

template <class T>
Parameters<T> final_parameters(const GmmShape& s, int64_t m, T* weights, T* means, T* variances) {
  const int64_t k = s.options.components, d = s.width;
  return {weights + m * k, means + m * k * d, variances + m * k * d};
}

/// Throws std::invalid_argument for a size out of range or a span that does not fit.
void check(const GmmShape& s, In x, In weights, In means, In variances, In posteriors, In history,
           std::span<const int32_t> choice, size_t needed, Scratch scratch);
/// Elements of real in one modality's share of the scratch.
int64_t real_scratch(const GmmShape& s);

/// Mean and biased variance of column j, not floored.
void column_moments(const real* x, int64_t n, int64_t d, int64_t j, double& mean, double& variance);
/// gamma [B, K] from the parameters; leaves the precisions in the scratch.
void expectation(const Problem& q, Parameters<const real> p, real* gamma);
/// sum over n of gamma_nk
real count(const Problem& q, const real* gamma, int64_t k);

}  // namespace decalign::inline DECALIGN_REAL::mixture
