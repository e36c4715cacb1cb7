// What gelu asks of its arguments, on every backend.
#pragma once

#include "kernels/gelu.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_gelu_forward(In x, Out y) {
  expect(x.size() == y.size(), "gelu: x and y differ in size");
}

inline void check_gelu_backward(In x, In dy, InOut dx) {
  expect(x.size() == dy.size(), "gelu: x and dy differ in size");
  expect(dx.empty() || dx.size() == x.size(), "gelu: x and dx differ in size");
}

}  // namespace decalign::inline DECALIGN_REAL
