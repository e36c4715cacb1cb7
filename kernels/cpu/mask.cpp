#include "kernels/mask.h"

#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {
constexpr int64_t kRows = 128;  // rows per task
}  // namespace

void mask_rows_forward(const Cpu& be, int64_t width, In x, In mask, Out y) {
  expect(width >= 0 && std::ssize(x) == std::ssize(mask) * width,
         "mask_rows: x must be [rows, width]");
  expect(y.size() == x.size(), "mask_rows: y must be [rows, width]");
  parallel_ranges(be, std::ssize(mask), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const real* from = x.data() + r * width;
      real* to = y.data() + r * width;
      if (mask[size_t(r)] != 0)
        std::copy_n(from, width, to);
      else
        std::fill_n(to, width, real(0));
    }
  });
}

void mask_rows_backward(const Cpu& be, int64_t width, In mask, In dy, InOut dx) {
  expect(width >= 0 && std::ssize(dy) == std::ssize(mask) * width,
         "mask_rows: dy must be [rows, width]");
  expect(dx.empty() || dx.size() == dy.size(), "mask_rows: dx must be [rows, width]");
  if (dx.empty()) return;
  parallel_ranges(be, std::ssize(mask), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (mask[size_t(r)] == 0) continue;
      const real* from = dy.data() + r * width;
      real* to = dx.data() + r * width;
      for (int64_t j = 0; j < width; ++j) to[j] += from[j];
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
