// Gaussian error linear unit.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// y = x Phi(x) = x / 2 (1 + erf(x / sqrt 2)), the exact form, not the one with tanh (Hendrycks,
/// Gimpel 2016).   x, y of one length; y may be x.
///
/// Relative error of y at most 4 eps, in the tail x < 0 too until y falls below the normal numbers
/// (x < -13 in float, -37.4 in double). -inf gives 0, inf inf, NaN NaN.
void gelu_forward(const Cpu&, In x, Out y);
void gelu_forward(const Cuda&, In x, Out y);

/// dx += dy (Phi(x) + x phi(x)), phi(x) = exp(-x^2 / 2) / sqrt(2 pi). The factor of -inf is 0, of
/// inf 1.   x, dy, dx of one length; dx empty: nothing is done.
void gelu_backward(const Cpu&, In x, In dy, InOut dx);
void gelu_backward(const Cuda&, In x, In dy, InOut dx);

}  // namespace decalign::inline DECALIGN_REAL
