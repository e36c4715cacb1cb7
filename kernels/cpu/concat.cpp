#include "kernels/concat.h"

#include "kernels/check/concat.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 32;  // samples per task

}  // namespace

void concat_forward(const Cpu& be, const ConcatShape& s, std::span<const In> parts, Out y) {
  check_concat_forward(s, parts, y);
  const int64_t columns = s.modalities() * s.width;
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
  check_concat_backward(s, dy, dparts);
  const int64_t columns = s.modalities() * s.width;
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
