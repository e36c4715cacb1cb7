// What distribution_encoder asks of its arguments, on every backend.
#pragma once

#include "kernels/distribution_encoder.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_distribution_encoder(const DistributionEncoderShape& s,
                                       std::span<const DistributionEncoderGroup> groups, In x,
                                       std::span<const double> hidden, bool backward) {
  expect(s.batch >= 0 && s.width >= 0 && s.hidden >= 0 && s.outputs >= 0,
         "distribution_encoder: negative size");
  expect(s.dropout.threshold() < 65536, "distribution_encoder: dropout rate must be below 1");
  expect(!s.dropout.on() || s.dropout.state, "distribution_encoder: dropout needs a random state");
  expect(std::ssize(x) == std::ssize(groups) * s.batch * s.width,
         "distribution_encoder: x must be [M, B, width]");
  expect(std::ssize(hidden) == std::ssize(groups) * s.batch * s.hidden,
         "distribution_encoder: hidden must be [M, B, hidden]");
  for (const DistributionEncoderGroup& g : groups) {
    expect(std::ssize(g.weight1) == s.hidden * s.width && std::ssize(g.bias1) == s.hidden,
           "distribution_encoder: weight1 must be [hidden, width], bias1 [hidden]");
    expect(std::ssize(g.weight2) == s.outputs * s.hidden && std::ssize(g.bias2) == s.outputs,
           "distribution_encoder: weight2 must be [outputs, hidden], bias2 [outputs]");
    if (!backward) continue;
    const auto fits = [](InOut d, In of) { return d.empty() || d.size() == of.size(); };
    expect(fits(g.dweight1, g.weight1) && fits(g.dbias1, g.bias1) && fits(g.dweight2, g.weight2) &&
               fits(g.dbias2, g.bias2),
           "distribution_encoder: a gradient differs from its weight in size");
  }
}

inline void check_distribution_encoder_forward(const DistributionEncoderShape& s,
                                               std::span<const DistributionEncoderGroup> groups,
                                               In x, Out z, Out rest,
                                               std::span<const double> hidden) {
  check_distribution_encoder(s, groups, x, hidden, false);
  expect(std::ssize(z) == std::ssize(groups) * s.batch * s.outputs,
         "distribution_encoder: z must be [M, B, outputs]");
  expect(rest.empty() || rest.size() == z.size(),
         "distribution_encoder: rest must have the size of z");
}

inline void check_distribution_encoder_backward(const DistributionEncoderShape& s,
                                                std::span<const DistributionEncoderGroup> groups,
                                                In x, std::span<const double> hidden, In dz,
                                                In drest, InOut dx, Scratch scratch,
                                                size_t scratch_bytes) {
  check_distribution_encoder(s, groups, x, hidden, true);
  expect(scratch.size() >= scratch_bytes, "distribution_encoder: scratch too small");
  expect(std::ssize(dz) == std::ssize(groups) * s.batch * s.outputs,
         "distribution_encoder: dz must be [M, B, outputs]");
  expect(drest.empty() || drest.size() == dz.size(),
         "distribution_encoder: drest must have the size of dz");
  expect(dx.empty() || dx.size() == x.size(), "distribution_encoder: dx must have the size of x");
}

}  // namespace decalign::inline DECALIGN_REAL
