// A tensor: a shape, a value and a place in the tape for its gradient. A cheap handle; the tape or
// the caller owns.
#pragma once

#include <vector>

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

using Shape = std::vector<int64_t>;

inline int64_t element_count(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

struct Tensor {
  Shape shape;
  Out value;      ///< element_count(shape) elements, valid until the tape is reset
  int node = -1;  ///< the tape's gradient slot; -1: no gradient is wanted

  bool requires_grad() const { return node >= 0; }
  int64_t size() const { return std::ssize(value); }
  explicit operator bool() const {
    return !shape.empty() || !value.empty();
  }  ///< false for a default Tensor
};

}  // namespace decalign::inline DECALIGN_REAL
