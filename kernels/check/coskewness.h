// What coskewness asks of its arguments, on every backend.
#pragma once

#include "kernels/coskewness.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_coskewness(const CoskewnessShape& s, In x, In w, std::span<const double> mean,
                             Out value, Out dx, Scratch scratch, size_t scratch_bytes) {
  expect(s.rows >= 0 && s.width >= 0 && s.width <= kCoskewnessWidth,
         "coskewness: sizes out of range");
  expect(std::ssize(x) == s.rows * s.width, "coskewness: x must be [N, d]");
  expect(std::ssize(w) == s.width * s.width * s.width, "coskewness: w must be [d, d, d]");
  expect(std::ssize(mean) == s.width, "coskewness: mean must be [d]");
  expect(value.size() == 1, "coskewness: value must have one element");
  expect(dx.empty() || dx.size() == x.size(), "coskewness: dx must have the size of x");
  expect(scratch.size() >= scratch_bytes, "coskewness: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
