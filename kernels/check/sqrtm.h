// What sqrtm asks of its arguments, on every backend, and what it makes of an eigenvalue.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/sqrtm.h"

namespace decalign::inline DECALIGN_REAL {

namespace sqrtm {
/// Times the largest |eigenvalue|: what is within rounding of 0.
inline constexpr double kRounding = 4 * double(std::numeric_limits<real>::epsilon());
}  // namespace sqrtm

inline void check_sqrtm_sizes(const SqrtmShape& s) {
  expect(s.batch >= 0 && s.width >= 1 && s.width <= 256, "sqrtm: sizes out of range");
  expect(std::isfinite(s.ridge) && s.ridge >= 0, "sqrtm: ridge must be >= 0");
}

// An array that may be missing.
inline bool fits_sqrtm(const SqrtmShape& s, In x) {
  return x.empty() || std::ssize(x) == s.batch * s.width * s.width;
}

inline void check_sqrtm(const SqrtmShape& s, In a, In root, In inverse,
                        std::span<const double> kept, Scratch scratch, size_t scratch_bytes) {
  expect(std::ssize(a) == s.batch * s.width * s.width, "sqrtm: a must be [batch, d, d]");
  expect(fits_sqrtm(s, root) && fits_sqrtm(s, inverse),
         "sqrtm: root and inverse must be [batch, d, d]");
  expect(kept.empty() || std::ssize(kept) == s.kept_size(), "sqrtm: kept has the wrong size");
  expect(scratch.size() >= scratch_bytes, "sqrtm: scratch too small");
}

inline void check_sqrtm_backward(const SqrtmShape& s, std::span<const double> kept, In droot,
                                 In dinverse, InOut da, Scratch scratch, size_t scratch_bytes) {
  expect(std::ssize(kept) == s.kept_size(), "sqrtm: kept has the wrong size");
  expect(fits_sqrtm(s, droot) && fits_sqrtm(s, dinverse) && fits_sqrtm(s, da),
         "sqrtm: gradients must be [batch, d, d]");
  expect(scratch.size() >= scratch_bytes, "sqrtm: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
