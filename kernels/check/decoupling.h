// What decoupling asks of its arguments, on every backend, and the weights of its terms.
#pragma once

#include <algorithm>

#include "kernels/decoupling.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_decoupling(const DecouplingShape& shape, In s, In c, In stats) {
  const Rows& rows = shape.rows;
  expect_rows(rows, "decoupling: rows are not ascending offsets");
  expect(shape.width >= 0, "decoupling: negative width");
  const int64_t n = rows.total() * shape.width;
  expect(std::ssize(s) == n && std::ssize(c) == n, "decoupling: s and c must be [rows, width]");
  expect(shape.active.empty() || std::ssize(shape.active) == rows.modalities,
         "decoupling: one active flag per modality");
  expect(std::ssize(stats) == 4 * rows.sequences(), "decoupling: stats must be [sequences, 4]");
}

inline void check_decoupling_forward(const DecouplingShape& shape, In s, In c, Out stats,
                                     Out value) {
  check_decoupling(shape, s, c, stats);
  expect(value.size() == 1, "decoupling: value must have one element");
}

inline void check_decoupling_backward(const DecouplingShape& shape, In s, In c, In stats, In dvalue,
                                      InOut ds, InOut dc) {
  check_decoupling(shape, s, c, stats);
  expect(dvalue.size() == 1, "decoupling: dvalue must have one element");
  expect(ds.empty() || ds.size() == s.size(), "decoupling: ds must have the size of s");
  expect(dc.empty() || dc.size() == c.size(), "decoupling: dc must have the size of c");
}

inline bool decoupling_active(const DecouplingShape& shape, int64_t m) {
  return shape.active.empty() || shape.active[size_t(m)] != 0;
}

/// Weight of one sequence's term in the value.
inline double decoupling_term_weight(const DecouplingShape& shape) {
  if (shape.rows.batch == 0) return 0;
  double w = 1 / double(shape.rows.batch);
  if (shape.loss == DecouplingLoss::cos2_mean) {
    int64_t count = 0;
    for (int64_t m = 0; m < shape.rows.modalities; ++m) count += decoupling_active(shape, m);
    w /= double(std::max<int64_t>(count, 1));
  }
  return w;
}

}  // namespace decalign::inline DECALIGN_REAL
