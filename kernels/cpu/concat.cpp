#include "kernels/concat.h"

#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 32;  // samples per task

void check(const ConcatShape& s) { expect(s.batch >= 0 && s.width >= 0, "concat: negative size"); }

}  // namespace

void concat_forward(const Cpu& be, const ConcatShape& s, std::span<const In> parts, Out y) {
  check(s);
  const int64_t part = s.active_count() * s.batch * s.width, columns = s.modalities() * s.width;
  for (const In& p : parts) expect(std::ssize(p) == part, "concat: a part must be [A, B, width]");
  expect(std::ssize(y) == s.batch * columns * std::ssize(parts),
         "concat: y must be [B, parts * M * width]");
  parallel_ranges(be, s.batch, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t p = 0; p < std::ssize(parts); ++p)
        for (int64_t m = 0, a = 0; m < s.modalities(); ++m) {
          real* to = y.data() + (b * std::ssize(parts) + p) * columns + m * s.width;
          if (s.active[size_t(m)])
            std::copy_n(parts[size_t(p)].data() + (a++ * s.batch + b) * s.width, s.width, to);
          else
            std::fill_n(to, s.width, real(0));
        }
  });
}

void concat_backward(const Cpu& be, const ConcatShape& s, In dy, std::span<const InOut> dparts) {
  check(s);
  const int64_t part = s.active_count() * s.batch * s.width, columns = s.modalities() * s.width;
  for (const InOut& p : dparts)
    expect(p.empty() || std::ssize(p) == part, "concat: a gradient must be [A, B, width]");
  expect(std::ssize(dy) == s.batch * columns * std::ssize(dparts),
         "concat: dy must be [B, parts * M * width]");
  parallel_ranges(be, s.batch, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t p = 0; p < std::ssize(dparts); ++p)
        for (int64_t m = 0, a = 0; m < s.modalities(); ++m) {
          if (!s.active[size_t(m)] || dparts[size_t(p)].empty()) continue;
          const real* from = dy.data() + (b * std::ssize(dparts) + p) * columns + m * s.width;
          real* to = dparts[size_t(p)].data() + (a++ * s.batch + b) * s.width;
          for (int64_t j = 0; j < s.width; ++j) to[j] += from[j];
        }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
