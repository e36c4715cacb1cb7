// What concat asks of its arguments, on every backend.
#pragma once

#include "kernels/concat.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_concat_forward(const ConcatShape& s, std::span<const In> parts, Out y) {
  expect(s.batch >= 0 && s.width >= 0, "concat: negative size");
  const int64_t part = s.active_count() * s.batch * s.width;
  for (const In& p : parts) expect(std::ssize(p) == part, "concat: a part must be [A, B, width]");
  expect(std::ssize(y) == s.batch * s.modalities() * s.width * std::ssize(parts),
         "concat: y must be [B, parts * M * width]");
}

inline void check_concat_backward(const ConcatShape& s, In dy, std::span<const InOut> dparts) {
  expect(s.batch >= 0 && s.width >= 0, "concat: negative size");
  const int64_t part = s.active_count() * s.batch * s.width;
  for (const InOut& p : dparts)
    expect(p.empty() || std::ssize(p) == part, "concat: a gradient must be [A, B, width]");
  expect(std::ssize(dy) == s.batch * s.modalities() * s.width * std::ssize(dparts),
         "concat: dy must be [B, parts * M * width]");
}

}  // namespace decalign::inline DECALIGN_REAL
