#include "kernels/check/dropout.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kElements = 16384;  // elements per task, about

// to[i] (=, +=) factor * keep(first + i) * from[i]
template <bool Add>
void run(const KeepStream& keep, real factor, int64_t first, int64_t count, const real* from,
         real* to) {
  for (int64_t i0 = 0; i0 < count; i0 += KeepRun::kCapacity) {
    const int64_t n = std::min(count - i0, KeepRun::kCapacity);
    if (keep.threshold == 0) {
      for (int64_t i = i0; i < i0 + n; ++i) to[i] = (Add ? to[i] : real(0)) + factor * from[i];
      continue;
    }
    const KeepRun bits(keep, first + i0, n);
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t lanes = std::min(n - i, kLanes);
      vreal v = keep_lanes(uint32_t(bits.at(i)), load_partial(from + i0 + i, lanes) * factor);
      if (Add) v += load_partial(to + i0 + i, lanes);
      store_partial(to + i0 + i, v, lanes);
    }
  }
}

int64_t task_rows(const DropoutShape& s) {
  return std::max<int64_t>(1, kElements / std::max<int64_t>(1, s.width));
}

}  // namespace

void dropout_forward(const Cpu& be, const DropoutShape& s, std::span<const RowCopy> copies, In x,
                     Out y) {
  check_dropout_forward(s, copies, x, y);
  const KeepStream keep(s.dropout);
  const real factor = real(s.scale * double(keep.scale));
  // Tasks are runs of rows in the order of the copies.
  parallel_ranges(be, s.y_rows, task_rows(s), [&](int64_t begin, int64_t end) {
    int64_t position = 0;
    for (const RowCopy& c : copies) {
      const int64_t low = std::max(begin - position, int64_t(0)),
                    high = std::min(end - position, c.rows);
      if (low < high)
        run<false>(keep, factor, (c.y_row + low) * s.width, (high - low) * s.width,
                   x.data() + (c.x_row + low) * s.width, y.data() + (c.y_row + low) * s.width);
      position += c.rows;
    }
  });
}

void dropout_backward(const Cpu& be, const DropoutShape& s, std::span<const RowCopy> copies, In dy,
                      InOut dx) {
  check_dropout_backward(s, copies, dy, dx);
  if (dx.empty()) return;
  const KeepStream keep(s.dropout);
  const real factor = real(s.scale * double(keep.scale));
  // Tasks own rows of x, which several copies may have read.
  parallel_ranges(be, s.x_rows, task_rows(s), [&](int64_t begin, int64_t end) {
    for (const RowCopy& c : copies) {
      const int64_t low = std::max(begin - c.x_row, int64_t(0)),
                    high = std::min(end - c.x_row, c.rows);
      if (low < high)
        run<true>(keep, factor, (c.y_row + low) * s.width, (high - low) * s.width,
                  dy.data() + (c.y_row + low) * s.width, dx.data() + (c.x_row + low) * s.width);
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
