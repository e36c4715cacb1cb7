// What mmd asks of its arguments, on every backend.
#pragma once

#include <cmath>

#include "kernels/mmd.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_mmd_forward(const MmdShape& s, In z, In rest, Out value, Out gradient,
                              Out gradient_rest, Scratch scratch, size_t scratch_bytes) {
  expect(s.modalities >= 0 && s.batch >= 0 && s.width >= 0, "mmd: sizes out of range");
  expect(s.bandwidth > 0 && std::isfinite(s.bandwidth), "mmd: bandwidth must be positive");
  expect(std::ssize(z) == s.modalities * s.batch * s.width, "mmd: z must be [M, B, p]");
  expect(rest.empty() || rest.size() == z.size(), "mmd: rest must have the size of z");
  expect(value.size() == 1, "mmd: value must have one element");
  expect(gradient.empty() || gradient.size() == z.size(), "mmd: gradient must have the size of z");
  expect(gradient_rest.empty() || gradient_rest.size() == gradient.size(),
         "mmd: gradient_rest must have the size of gradient");
  expect(scratch.size() >= scratch_bytes, "mmd: scratch too small");
}

inline void check_mmd_backward(In gradient, In gradient_rest, In dvalue, InOut dz, InOut drest) {
  expect(dvalue.size() == 1, "mmd: dvalue must have one element");
  expect(gradient_rest.empty() || gradient_rest.size() == gradient.size(),
         "mmd: gradient_rest must have the size of gradient");
  expect(dz.empty() || dz.size() == gradient.size(), "mmd: dz must have the size of gradient");
  expect(drest.empty() || drest.size() == dz.size(), "mmd: drest must have the size of dz");
}

/// Of one unordered pair of rows in the value: within a modality, between two.
struct MmdWeights {
  double within, between;
};
inline MmdWeights mmd_weights(const MmdShape& s) {
  const double batch2 = double(s.batch) * double(s.batch);
  const double pairs = double(s.modalities * (s.modalities - 1) / 2);
  return {2 * 2 / double(s.modalities) / batch2, -2 / (pairs * batch2)};
}

}  // namespace decalign::inline DECALIGN_REAL
