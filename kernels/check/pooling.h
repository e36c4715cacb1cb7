// What pooling and temporal_pooling ask of their arguments, on every backend.
#pragma once

#include "kernels/pooling.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_pooling_forward(const Rows& rows, int64_t width, In x, In mask, Out y) {
  expect_rows(rows, "pooling: invalid rows");
  expect(width >= 0 && std::ssize(x) == rows.total() * width, "pooling: x must be [R, width]");
  expect(mask.empty() || std::ssize(mask) == rows.total(), "pooling: mask must be [R]");
  expect(std::ssize(y) == rows.sequences() * width, "pooling: y must be [M B, width]");
}

inline void check_pooling_backward(const Rows& rows, int64_t width, In mask, In dy, InOut dx) {
  expect_rows(rows, "pooling: invalid rows");
  expect(width >= 0 && std::ssize(dy) == rows.sequences() * width,
         "pooling: dy must be [M B, width]");
  expect(mask.empty() || std::ssize(mask) == rows.total(), "pooling: mask must be [R]");
  expect(dx.empty() || std::ssize(dx) == rows.total() * width, "pooling: dx must be [R, width]");
}

inline void check_temporal_pooling(const Rows& from, const Rows& to, int64_t width) {
  expect_rows(from, "temporal_pooling: invalid rows");
  expect_rows(to, "temporal_pooling: invalid rows");
  expect(from.sequences() == to.sequences(), "temporal_pooling: the rows differ in sequences");
  expect(width >= 0, "temporal_pooling: negative width");
}

inline void check_temporal_pooling_forward(const Rows& from, const Rows& to, int64_t width, In x,
                                           Out y) {
  check_temporal_pooling(from, to, width);
  expect(std::ssize(x) == from.total() * width, "temporal_pooling: x must be [from, width]");
  expect(std::ssize(y) == to.total() * width, "temporal_pooling: y must be [to, width]");
}

inline void check_temporal_pooling_backward(const Rows& from, const Rows& to, int64_t width, In dy,
                                            InOut dx) {
  check_temporal_pooling(from, to, width);
  expect(std::ssize(dy) == to.total() * width, "temporal_pooling: dy must be [to, width]");
  expect(dx.empty() || std::ssize(dx) == from.total() * width,
         "temporal_pooling: dx must be [from, width]");
}

}  // namespace decalign::inline DECALIGN_REAL
