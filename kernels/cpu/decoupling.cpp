#include "kernels/decoupling.h"

#include <cmath>

#include "kernels/check/decoupling.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kEps = 1e-8;

// Sequences per task, so that small problems stay on one thread.
int64_t grain(const DecouplingShape& shape) {
  const int64_t values = shape.rows.total() * shape.width;
  return std::max<int64_t>(1, shape.rows.sequences() * (1 << 15) / std::max<int64_t>(values, 1));
}

}  // namespace

void decoupling_forward(const Cpu& be, const DecouplingShape& shape, In s, In c, Out stats,
                        Out value) {
  check_decoupling_forward(shape, s, c, stats, value);
  const Rows& rows = shape.rows;
  parallel_ranges(be, rows.sequences(), grain(shape), [&](int64_t first, int64_t last) {
    for (int64_t q = first; q < last; ++q) {
      real* out = stats.data() + 4 * q;
      const int64_t n = decoupling_active(shape, q / rows.batch) ? rows.length(q) * shape.width : 0;
      const real *a = s.data() + rows.begin(q) * shape.width,
                 *b = c.data() + rows.begin(q) * shape.width;
      double aa = 0, bb = 0, ab = 0;
#pragma omp simd reduction(+ : aa, bb, ab)
      for (int64_t i = 0; i < n; ++i) {
        const double x = double(a[i]), y = double(b[i]);
        aa += x * x;
        bb += y * y;
        ab += x * y;
      }
      // The norms' own gradient is not clamped: d max(|s|, eps) = s / |s| in either case.
      const double na = std::sqrt(aa), nb = std::sqrt(bb);
      const double ma = std::max(na, kEps), mb = std::max(nb, kEps), cosine = ab / (ma * mb);
      out[0] = real(cosine);
      out[1] = real(n > 0 ? 1 / (ma * mb) : 0);
      out[2] = real(na > 0 ? cosine / (ma * na) : 0);
      out[3] = real(nb > 0 ? cosine / (mb * nb) : 0);
    }
  });
  double sum = 0;
  for (int64_t q = 0; q < rows.sequences(); ++q) {
    const double cosine = double(stats[size_t(4 * q)]);
    if (decoupling_active(shape, q / rows.batch))
      sum += shape.loss == DecouplingLoss::cos2_mean ? cosine * cosine : cosine;
  }
  value[0] = real(sum * decoupling_term_weight(shape));
}

void decoupling_backward(const Cpu& be, const DecouplingShape& shape, In s, In c, In stats,
                         In dvalue, InOut ds, InOut dc) {
  check_decoupling_backward(shape, s, c, stats, dvalue, ds, dc);
  const Rows& rows = shape.rows;
  const double weight = double(dvalue[0]) * decoupling_term_weight(shape);
  parallel_ranges(be, rows.sequences(), grain(shape), [&](int64_t first, int64_t last) {
    for (int64_t q = first; q < last; ++q) {
      if (!decoupling_active(shape, q / rows.batch)) continue;
      const real* st = stats.data() + 4 * q;
      const real g =
          real(shape.loss == DecouplingLoss::cos2_mean ? 2 * weight * double(st[0]) : weight);
      const int64_t begin = rows.begin(q) * shape.width, n = rows.length(q) * shape.width;
      const real *a = s.data() + begin, *b = c.data() + begin;
      const real cross = g * st[1], self_a = g * st[2], self_b = g * st[3];
      if (!ds.empty()) {
        real* d = ds.data() + begin;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) d[i] += cross * b[i] - self_a * a[i];
      }
      if (!dc.empty()) {
        real* d = dc.data() + begin;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) d[i] += cross * a[i] - self_b * b[i];
      }
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
