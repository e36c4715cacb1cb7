// What mask_rows and zero_rows_mask ask of their arguments, on every backend.
#pragma once

#include "kernels/mask.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_mask_rows_forward(int64_t width, In x, In mask, Out y) {
  expect(width >= 0 && std::ssize(x) == std::ssize(mask) * width,
         "mask_rows: x must be [rows, width]");
  expect(y.size() == x.size(), "mask_rows: y must be [rows, width]");
}

inline void check_mask_rows_backward(int64_t width, In mask, In dy, InOut dx) {
  expect(width >= 0 && std::ssize(dy) == std::ssize(mask) * width,
         "mask_rows: dy must be [rows, width]");
  expect(dx.empty() || dx.size() == dy.size(), "mask_rows: dx must be [rows, width]");
}

inline void check_zero_rows_mask(const Rows& rows, std::span<const StepSource> sources, Out mask) {
  expect_rows(rows, "zero_rows_mask: invalid rows");
  expect(std::ssize(sources) == rows.modalities, "zero_rows_mask: one source per modality");
  expect(std::ssize(mask) == rows.total(), "zero_rows_mask: mask must be [R]");
  for (int64_t s = 0; s < rows.sequences(); ++s) {
    const StepSource& source = sources[size_t(s / rows.batch)];
    expect(source.x.empty() || rows.length(s) <= source.steps,
           "zero_rows_mask: a sequence is longer than its source");
  }
  for (const StepSource& source : sources)
    expect(source.x.empty() || (source.steps >= 0 && source.width >= 0 &&
                                std::ssize(source.x) == rows.batch * source.steps * source.width),
           "zero_rows_mask: a source must be [B, steps, width]");
}

}  // namespace decalign::inline DECALIGN_REAL
