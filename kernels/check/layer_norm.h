// What layer_norm asks of its arguments, on every backend.
#pragma once

#include "kernels/layer_norm.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_layer_norm(const LayerNormShape& s, std::span<const LayerNormGroup> groups,
                             bool backward) {
  expect(s.rows >= 0 && s.width >= 0 && s.eps >= 0, "layer_norm: negative size");
  expect(s.dropout.threshold() < 65536, "layer_norm: dropout rate must be below 1");
  expect(!s.dropout.on() || s.dropout.state, "layer_norm: dropout needs a random state");
  int64_t next = 0;
  for (const LayerNormGroup& g : groups) {
    expect(g.rows >= 0 && g.row == next, "layer_norm: the groups do not cover the rows in order");
    next += g.rows;
    expect(std::ssize(g.weight) == s.width, "layer_norm: weight must be [width]");
    if (!backward) expect(std::ssize(g.bias) == s.width, "layer_norm: bias must be [width]");
    if (!backward) continue;
    expect(g.dweight.empty() || std::ssize(g.dweight) == s.width,
           "layer_norm: dweight must be [width]");
    expect(g.dbias.empty() || std::ssize(g.dbias) == s.width, "layer_norm: dbias must be [width]");
  }
  expect(next == s.rows, "layer_norm: the groups do not cover the rows in order");
}

inline void check_layer_norm_forward(const LayerNormShape& s,
                                     std::span<const LayerNormGroup> groups, In x, In z, Out sum,
                                     Out stats, Out y) {
  check_layer_norm(s, groups, false);
  const int64_t size = s.rows * s.width;
  expect(std::ssize(x) == size && std::ssize(y) == size && std::ssize(sum) == size,
         "layer_norm: x, y and sum must be [rows, width]");
  expect(z.empty() || std::ssize(z) == size, "layer_norm: z must be [rows, width]");
  expect(std::ssize(stats) == 2 * s.rows, "layer_norm: stats must be [rows, 2]");
}

inline void check_layer_norm_backward(const LayerNormShape& s,
                                      std::span<const LayerNormGroup> groups, In sum, In stats,
                                      In dy, InOut dx, InOut dz, Scratch scratch,
                                      size_t scratch_bytes) {
  check_layer_norm(s, groups, true);
  const int64_t size = s.rows * s.width;
  expect(std::ssize(sum) == size && std::ssize(dy) == size,
         "layer_norm: sum and dy must be [rows, width]");
  expect(std::ssize(stats) == 2 * s.rows, "layer_norm: stats must be [rows, 2]");
  expect(dx.empty() || std::ssize(dx) == size, "layer_norm: dx must be [rows, width]");
  expect(dz.empty() || std::ssize(dz) == size, "layer_norm: dz must be [rows, width]");
  expect(scratch.size() >= scratch_bytes, "layer_norm: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
