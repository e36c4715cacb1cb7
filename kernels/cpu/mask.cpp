#include "kernels/mask.h"

#include "kernels/check/mask.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {
constexpr int64_t kRows = 128;  // rows per task
}  // namespace

void mask_rows_forward(const Cpu& be, int64_t width, In x, In mask, Out y) {
  check_mask_rows_forward(width, x, mask, y);
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
  check_mask_rows_backward(width, mask, dy, dx);
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

void zero_rows_mask(const Cpu& be, const Rows& rows, std::span<const StepSource> sources,
                    Out mask) {
  check_zero_rows_mask(rows, sources, mask);
  parallel_for(be, rows.sequences(), [&](int64_t s) {
    const StepSource& source = sources[size_t(s / rows.batch)];
    for (int64_t t = 0; t < rows.length(s); ++t) {
      bool keep = source.x.empty();
      for (int64_t j = 0; j < source.width && !keep; ++j)
        keep = source.x[size_t((s % rows.batch * source.steps + t) * source.width + j)] != 0;
      mask[size_t(rows.begin(s) + t)] = keep;
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
