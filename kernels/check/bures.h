// What bures asks of its arguments, on every backend, and where its pairs are.
#pragma once

#include <cmath>

#include "kernels/bures.h"

namespace decalign::inline DECALIGN_REAL {

namespace bures {
constexpr int64_t kLargest = 256;  // width and rank of what is not diagonal

// Of what the sum over the width is multiplied by.
inline double factor(const BuresShape& s) {
  return s.options.reduction == Reduction::sum || s.width == 0 ? 1 : 1 / double(s.width);
}
}  // namespace bures

inline void check_bures_sizes(const BuresShape& s) {
  expect(s.modalities >= 1 && s.components >= 0 && s.width >= 0, "bures: sizes out of range");
  if (s.options.spread == Spread::variances) {
    expect(s.rank == 1, "bures: the rank of variances is 1");
  } else {
    expect(s.width >= 1 && s.width <= bures::kLargest, "bures: width out of range");
    expect(s.rank >= 1 && s.rank <= bures::kLargest, "bures: rank out of range");
    expect(s.options.spread == Spread::factor || s.rank == s.width,
           "bures: the rank of covariances is the width");
  }
  expect(std::isfinite(s.options.ridge) && s.options.ridge >= 0 &&
             (s.options.ridge == 0 || s.options.spread != Spread::factor),
         "bures: ridge must be >= 0, and 0 with factors");
}

inline void check_bures(const BuresShape& s, In means, In spread, In cost, In kept, Scratch scratch,
                        size_t scratch_bytes) {
  expect(std::ssize(means) == s.prototypes() * s.width, "bures: means must be [M, K, d]");
  expect(std::ssize(spread) == s.spread_size(), "bures: spread must be [M, K, d, rank]");
  expect(std::ssize(cost) == s.pairs(), "bures: cost must be [pairs, K, K] or [pairs, K]");
  expect(kept.empty() || std::ssize(kept) == s.kept_size(),
         "bures: kept must be [pairs, 2, d, rank]");
  expect(scratch.size() >= scratch_bytes, "bures: scratch too small");
}

inline void check_bures_backward(const BuresShape& s, In means, In spread, In kept, In dcost,
                                 InOut dmeans, InOut dspread, Scratch scratch,
                                 size_t scratch_bytes) {
  check_bures(s, means, spread, dcost, kept, scratch, scratch_bytes);
  expect(dmeans.empty() || dmeans.size() == means.size(),
         "bures: dmeans must have the size of means");
  expect(dspread.empty() || dspread.size() == spread.size(),
         "bures: dspread must have the size of spread");
  expect(dspread.empty() || std::ssize(kept) == s.kept_size(),
         "bures: the gradient needs what the forward pass kept");
}

}  // namespace decalign::inline DECALIGN_REAL
