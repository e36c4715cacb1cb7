// The polynomials that lead from a matrix to its orthogonal polar factor, on every backend.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL::polar {

/// x <- x (a + b x^T x + c (x^T x)^2). The first six take singular values of 1e-3 .. 1 near 1
/// (Amsel, Persson, Musco, Gower 2025, Polar Express), the seventh, Newton-Schulz of fifth degree,
/// to 1 with an error of third order. The second serves any values up to 1.97, keeps them there and
/// takes small ones four times up.
struct Step {
  double a, b, c;
};
inline constexpr Step kSteps[] = {{8.28721201814563, -23.595886519098837, 17.300387312530933},
                                  {4.107059111542203, -2.9478499167379106, 0.5448431082926601},
                                  {3.9486908534822946, -2.908902115962949, 0.5518191394370137},
                                  {3.3184196573706015, -2.488488024314874, 0.51004894012372},
                                  {2.300652019954817, -1.6689039845747493, 0.4188073119525673},
                                  {1.891301407787398, -1.2679958271945868, 0.37680408948524835},
                                  {1.875, -1.25, 0.375}};
inline constexpr Step kCubic = {1.5, -0.5, 0};  // Newton-Schulz of third degree: second order
inline constexpr int kNewton = 6, kAgain = 1, kMostSteps = 64;

/// |I - x^T x| after a Newton step: above it there are values so small that going round again is
/// faster.
inline constexpr double kFar = 0.95;
/// |I - x^T x| from where one step of the kind leaves nothing but rounding.
inline constexpr double kCubicEnds = 1e-8, kQuinticEnds = 4e-6;
/// What is added to the diagonal of x / |x|: rounding's worth, so that a matrix that is 0 somewhere
/// has a factor there, too.
inline constexpr double kLittle = 5e-17;
/// x is scaled by the bound |x^T x|^1/2 on its singular values, and by a little more than that.
inline constexpr double kMargin = 1.02;

}  // namespace decalign::inline DECALIGN_REAL::polar
