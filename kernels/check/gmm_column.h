// One column of one component in GmmArithmetic::products, on every backend: columns are
// standardised, x' = (x - shift) scale; parameters and their gradients are those of x, in double.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/check/both.h"
#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL::gmm_column {

inline constexpr real kMost = std::numeric_limits<real>::max();
inline constexpr double kEpsilon = std::numeric_limits<real>::epsilon();

struct Standard {
  double variance;  // biased, of the batch
  real shift, scale;
};

/// From the column's first element, and the sums over n rows of x - first and of its square.
DECALIGN_BOTH inline Standard standard(double first, double sum, double square, double n) {
  const double mean = sum / n, v = square / n - mean * mean, variance = v > 0 ? v : 0;
  const real scale = real(1 / sqrt(variance));
  const bool usable = scale > 0 && scale <= kMost;
  return {variance, real(first + mean), usable ? scale : real(1)};
}

/// What `real` cannot tell from 0 beside the batch's variance is floored.
DECALIGN_BOTH inline double variance_floor(double floor, double batch_variance) {
  const double least = kEpsilon * batch_variance;
  return floor > least ? floor : least;
}

/// Of x'.
struct Column {
  double mean, precision;
};
DECALIGN_BOTH inline Column column(double mean, double variance, double shift, double scale) {
  return {(mean - shift) * scale, 1 / (variance * scale) / scale};
}

struct Estimate {
  double mean, variance;
};
/// From the sums of gamma x' and gamma x'^2. kept: the posteriors' sum over its floored value N_k;
/// where it is less than 1, means and squares shrink towards 0.
DECALIGN_BOTH inline Estimate estimate(double plain, double square, double n_k, double kept,
                                       double shift, double scale) {
  const double a = plain / (n_k * scale), b = square / (n_k * scale) / scale;
  return {kept * shift + a, b - a * a + (1 - kept) * (2 * shift * a + kept * shift * shift)};
}

/// square x'^2 + plain x' + constant
struct Terms {
  double square, plain, constant;
};
/// Of the logit, but for its logarithms.
DECALIGN_BOTH inline Terms logit_terms(const Column& c) {
  const double slope = c.mean * c.precision;
  return {-0.5 * c.precision, slope, -0.5 * c.mean * slope};
}

/// N_k times the gradient of gamma through this column's mean and variance; that of x' is N_k^-1
/// gamma (2 square x' + plain). kept: the posteriors' sum was not floored.
DECALIGN_BOTH inline Terms step_terms(const Column& c, double mean, double variance, double dmean,
                                      double dvariance, double scale, bool kept) {
  const double dmu = dmean / scale, dv = dvariance / scale / scale;
  const double floored = kept ? -dvariance * variance : (dmean - dvariance * mean) * mean;
  return {dv, dmu - 2 * dv * c.mean, floored + (dv * c.mean - dmu) * c.mean};
}

/// Gradients of mean and variance from the sums of the logit's gradient times 1, x', x'^2.
DECALIGN_BOTH inline Estimate logit_pull(const Column& c, double total, double plain, double square,
                                         double scale) {
  const double spread = square - 2 * c.mean * plain + c.mean * c.mean * total;
  return {scale * c.precision * (plain - c.mean * total),
          0.5 * scale * scale * c.precision * (c.precision * spread - total)};
}

}  // namespace decalign::inline DECALIGN_REAL::gmm_column
