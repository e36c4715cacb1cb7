// What dropout asks of its arguments, on every backend.
#pragma once

#include "kernels/dropout.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_dropout(const DropoutShape& s, std::span<const RowCopy> copies, bool backward) {
  expect(s.x_rows >= 0 && s.y_rows >= 0 && s.width >= 0, "dropout: negative size");
  expect(s.dropout.threshold() < 65536, "dropout: rate must be below 1");
  expect(!s.dropout.on() || s.dropout.state,
         backward ? "dropout: backward needs a random state" : "dropout: needs a random state");
  int64_t covered = 0;
  for (const RowCopy& c : copies) {
    expect(c.rows >= 0 && c.x_row >= 0 && c.x_row + c.rows <= s.x_rows,
           "dropout: a copy's rows of x do not fit");
    expect(c.y_row >= 0 && c.y_row + c.rows <= s.y_rows, "dropout: a copy's rows of y do not fit");
    covered += c.rows;
  }
  expect(covered == s.y_rows, "dropout: the copies do not cover y once");
}

inline void check_dropout_forward(const DropoutShape& s, std::span<const RowCopy> copies, In x,
                                  Out y) {
  check_dropout(s, copies, false);
  expect(std::ssize(x) == s.x_rows * s.width, "dropout: x must be [x_rows, width]");
  expect(std::ssize(y) == s.y_rows * s.width, "dropout: y must be [y_rows, width]");
}

inline void check_dropout_backward(const DropoutShape& s, std::span<const RowCopy> copies, In dy,
                                   InOut dx) {
  check_dropout(s, copies, true);
  expect(std::ssize(dy) == s.y_rows * s.width, "dropout: dy must be [y_rows, width]");
  expect(dx.empty() || std::ssize(dx) == s.x_rows * s.width, "dropout: dx must be [x_rows, width]");
}

}  // namespace decalign::inline DECALIGN_REAL
