// What contrastive asks of its arguments, on every backend.
#pragma once

#include <cmath>

#include "kernels/contrastive.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_contrastive(const ContrastiveShape& s, In features,
                              std::span<const int32_t> classes, Out value, Out gradient,
                              Scratch scratch, size_t scratch_bytes) {
  expect(s.batch >= 0 && s.width >= 0, "contrastive: sizes out of range");
  expect(s.temperature != 0 && std::isfinite(s.temperature),
         "contrastive: temperature must not be 0");
  expect(std::ssize(features) == s.batch * s.width, "contrastive: features must be [B, F]");
  expect(std::ssize(classes) == s.batch, "contrastive: one class per row");
  expect(value.size() == 1, "contrastive: value must have one element");
  expect(gradient.empty() || gradient.size() == features.size(),
         "contrastive: gradient must have the size of features");
  expect(scratch.size() >= scratch_bytes, "contrastive: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
