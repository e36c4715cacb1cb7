// What conv1d asks of its arguments, on every backend.
#pragma once

#include "kernels/conv1d.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_conv1d(const Conv1dShape& s, const Rows& rows, In x, In weight) {
  expect_rows(rows, "conv1d: invalid rows");
  expect(s.batch >= 0 && s.steps >= 0 && s.width >= 0 && s.channels >= 0 && s.kernel >= 1,
         "conv1d: negative size");
  expect(s.batch == rows.batch && s.modality >= 0 && s.modality < rows.modalities,
         "conv1d: batch or modality disagrees with the rows");
  expect(std::ssize(x) == s.batch * s.steps * s.width, "conv1d: x must be [batch, steps, width]");
  expect(std::ssize(weight) == s.channels * s.width * s.kernel,
         "conv1d: weight must be [channels, width, kernel]");
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t length = rows.length(s.modality * s.batch + b);
    expect(length == 0 || length <= s.steps - s.kernel + 1, "conv1d: a sequence is too long");
  }
}

inline void check_conv1d_forward(const Conv1dShape& s, const Rows& rows, In x, In weight, Out y,
                                 Scratch scratch, size_t scratch_bytes) {
  check_conv1d(s, rows, x, weight);
  expect(std::ssize(y) == rows.total() * s.channels, "conv1d: y must be [rows, channels]");
  expect(scratch.size() >= scratch_bytes, "conv1d: scratch too small");
}

inline void check_conv1d_backward(const Conv1dShape& s, const Rows& rows, In x, In weight, In dy,
                                  InOut dx, InOut dweight, Scratch scratch, size_t scratch_bytes) {
  check_conv1d(s, rows, x, weight);
  expect(std::ssize(dy) == rows.total() * s.channels, "conv1d: dy must be [rows, channels]");
  expect(dx.empty() || dx.size() == x.size(), "conv1d: dx must be [batch, steps, width]");
  expect(dweight.empty() || dweight.size() == weight.size(),
         "conv1d: dweight must be [channels, width, kernel]");
  expect(scratch.size() >= scratch_bytes, "conv1d: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
