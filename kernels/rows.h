// All sequences of a batch as the rows of one array.
#pragma once

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// All M modalities of a batch of B samples lie in one [R, d] array, modality after modality,
/// sample after sample. Sequence s = m * B + b owns the rows first[s] .. first[s + 1]. A sequence
/// may be empty. Does not own `first`.
struct Rows {
  int64_t modalities = 0;          ///< M
  int64_t batch = 0;               ///< B
  std::span<const int64_t> first;  ///< [M B + 1], ascending from 0

  int64_t sequences() const { return modalities * batch; }
  int64_t total() const { return first.empty() ? 0 : first.back(); }
  int64_t begin(int64_t s) const { return first[size_t(s)]; }
  int64_t length(int64_t s) const { return first[size_t(s) + 1] - first[size_t(s)]; }
  int64_t modality_begin(int64_t m) const { return begin(m * batch); }
  int64_t modality_rows(int64_t m) const { return begin((m + 1) * batch) - begin(m * batch); }
};

/// Throws std::invalid_argument unless `first` has M B + 1 ascending entries from 0.
inline void expect_rows(const Rows& rows, const char* what) {
  expect(rows.modalities >= 0 && rows.batch >= 0 &&
             std::ssize(rows.first) == rows.sequences() + 1 && rows.first[0] == 0,
         what);
  for (int64_t s = 0; s < rows.sequences(); ++s) expect(rows.length(s) >= 0, what);
}

}  // namespace decalign::inline DECALIGN_REAL
