// What gather asks of its arguments, on every backend.
#pragma once

#include "kernels/gather.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_gather(std::span<const GatherPart> parts, const int64_t* first, int64_t count) {
  expect(first != nullptr && count >= 0, "gather: no first sample or a negative count");
  for (const GatherPart& p : parts) {
    expect(p.elements >= 1 && std::ssize(p.source) % p.elements == 0,
           "gather: source must be [N, elements]");
    expect(p.target.empty() || p.whole.empty(), "gather: a part has two targets");
    expect(std::ssize(p.target) + std::ssize(p.whole) == count * p.elements,
           "gather: target must be [count, elements]");
  }
}

}  // namespace decalign::inline DECALIGN_REAL
