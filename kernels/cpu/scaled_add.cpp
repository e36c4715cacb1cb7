#include "kernels/scaled_add.h"

#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {

void scaled_add(const Cpu& be, In scale, In x, InOut y) {
  expect(scale.size() == 1, "scaled_add: scale must have one element");
  expect(y.empty() || x.size() == y.size(), "scaled_add: x and y differ in size");
  const real a = scale[0];
  parallel_ranges(be, std::ssize(y), 1 << 16, [&](int64_t begin, int64_t end) {
    const real* px = x.data();
    real* py = y.data();
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) py[i] += a * px[i];
  });
}

}  // namespace decalign::inline DECALIGN_REAL
