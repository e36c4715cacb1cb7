// What matmul asks of its arguments, on every backend.
#pragma once

#include <cstdint>

#include "kernels/matmul.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_matmul(const MatmulShape& s, std::span<const MatmulGroup> groups, bool backward) {
  expect(s.x_rows >= 0 && s.y_rows >= 0 && s.k >= 0 && s.n >= 0 && s.y_cols >= 0,
         "matmul: negative size");
  expect(!s.dropout.on() || s.relu, "matmul: dropout needs relu");
  expect(!s.dropout.on() || s.dropout.state || backward, "matmul: dropout needs a random state");
  expect(s.dropout.threshold() < 65536, "matmul: dropout rate must be below 1");
  int64_t covered = 0;
  for (const MatmulGroup& g : groups) {
    expect(g.rows >= 0 && g.x_row >= 0 && g.x_row + g.rows <= s.x_rows,
           "matmul: a group's rows of x do not fit");
    expect(
        g.y_row >= 0 && g.y_row + g.rows <= s.y_rows && g.y_col >= 0 && g.y_col + s.n <= s.y_cols,
        "matmul: a group's block of y does not fit");
    expect(std::ssize(g.weight) == s.n * s.k, "matmul: weight must be [n, k]");
    expect(g.bias.empty() || std::ssize(g.bias) == s.n, "matmul: bias must be [n]");
    covered += g.rows * s.n;
    if (!backward) continue;
    expect(g.dweight.empty() || std::ssize(g.dweight) == s.n * s.k,
           "matmul: dweight must be [n, k]");
    expect(g.dbias.empty() || std::ssize(g.dbias) == s.n, "matmul: dbias must be [n]");
  }
  expect(covered == s.y_rows * s.y_cols, "matmul: the groups do not cover y once");
  if (!backward) return;
  const auto overlap = [](InOut a, InOut b) {
    const auto x = reinterpret_cast<uintptr_t>(a.data()), y = reinterpret_cast<uintptr_t>(b.data());
    return x < y + b.size_bytes() && y < x + a.size_bytes();
  };
  for (const MatmulGroup& g : groups)
    for (const MatmulGroup& h : groups) {
      expect(g.dweight.data() == h.dweight.data() || !overlap(g.dweight, h.dweight),
             "matmul: weight gradients overlap partly");
      expect(g.dbias.data() == h.dbias.data() || !overlap(g.dbias, h.dbias),
             "matmul: bias gradients overlap partly");
    }
}

inline void check_matmul_forward(const MatmulShape& s, std::span<const MatmulGroup> groups, In x,
                                 Out y, Scratch scratch, size_t scratch_bytes) {
  check_matmul(s, groups, false);
  expect(std::ssize(x) == s.x_rows * s.k, "matmul: x must be [x_rows, k]");
  expect(std::ssize(y) == s.y_rows * s.y_cols, "matmul: y must be [y_rows, y_cols]");
  expect(scratch.size() >= scratch_bytes, "matmul: scratch too small");
}

inline void check_matmul_backward(const MatmulShape& s, std::span<const MatmulGroup> groups, In x,
                                  In y, In dy, InOut dx, Scratch scratch, size_t scratch_bytes) {
  check_matmul(s, groups, true);
  expect(std::ssize(x) == s.x_rows * s.k, "matmul: x must be [x_rows, k]");
  expect(std::ssize(dy) == s.y_rows * s.y_cols, "matmul: dy must be [y_rows, y_cols]");
  expect(y.size() == dy.size() || (y.empty() && !s.relu), "matmul: y must be [y_rows, y_cols]");
  expect(dx.empty() || dx.size() == x.size(), "matmul: dx must be [x_rows, k]");
  expect(scratch.size() >= scratch_bytes, "matmul: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
