#include "kernels/pooling.h"

#include "kernels/check/pooling.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

double divisor(const Rows& rows, int64_t s, In mask) {
  if (mask.empty()) return double(std::max<int64_t>(rows.length(s), 1));
  double count = 0;
  for (int64_t r = rows.begin(s); r < rows.begin(s + 1); ++r) count += double(mask[size_t(r)]);
  return std::max(count, 1.0);
}

// out = sum of mask_r x_r over rows [first, last) / divisor, or with all ones without a mask.
// Summed in double and rounded once: moments and mixtures amplify what is lost here.
void mean_of_rows(In x, In mask, int64_t first, int64_t last, int64_t width, double divisor,
                  real* out) {
  constexpr int64_t kChunk = 64;
  for (int64_t begin = 0; begin < width; begin += kChunk) {
    const int64_t count = std::min(kChunk, width - begin);
    double sum[kChunk] = {};
    for (int64_t r = first; r < last; ++r) {
      const double weight = mask.empty() ? 1 : double(mask[size_t(r)]);
      const real* from = x.data() + r * width + begin;
      if (weight == 0) continue;
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) sum[j] += weight * double(from[j]);
    }
    for (int64_t j = 0; j < count; ++j) out[begin + j] = real(sum[j] / divisor);
  }
}

void add_scaled(int64_t n, real factor, const real* from, real* to) {
  for (int64_t j = 0; j < n; ++j) to[j] += factor * from[j];
}

// The steps of a sequence of length `from` that step i of a sequence of length `to` averages.
struct Window {
  Window(int64_t i, int64_t from, int64_t to)
      : begin(i * from / to), end(((i + 1) * from + to - 1) / to) {}
  int64_t begin, end;
};

}  // namespace

void pooling_forward(const Cpu& be, const Rows& rows, int64_t width, In x, In mask, Out y) {
  check_pooling_forward(rows, width, x, mask, y);
  parallel_for(be, rows.sequences(), [&](int64_t s) {
    mean_of_rows(x, mask, rows.begin(s), rows.begin(s + 1), width, divisor(rows, s, mask),
                 y.data() + s * width);
  });
}

void pooling_backward(const Cpu& be, const Rows& rows, int64_t width, In mask, In dy, InOut dx) {
  check_pooling_backward(rows, width, mask, dy, dx);
  if (dx.empty()) return;
  parallel_for(be, rows.sequences(), [&](int64_t s) {
    const double inverse = 1 / divisor(rows, s, mask);
    for (int64_t r = rows.begin(s); r < rows.begin(s + 1); ++r)
      if (mask.empty() || mask[size_t(r)] != 0)
        add_scaled(width, real(mask.empty() ? inverse : inverse * double(mask[size_t(r)])),
                   dy.data() + s * width, dx.data() + r * width);
  });
}

void temporal_pooling_forward(const Cpu& be, const Rows& from, const Rows& to, int64_t width, In x,
                              Out y) {
  check_temporal_pooling_forward(from, to, width, x, y);
  parallel_for(be, to.sequences(), [&](int64_t s) {
    for (int64_t i = 0; i < to.length(s); ++i) {
      real* result = y.data() + (to.begin(s) + i) * width;
      const int64_t length = from.length(s);
      const Window w(i, length, to.length(s));
      if (length == 0)
        std::fill_n(result, width, real(0));
      else
        mean_of_rows(x, {}, from.begin(s) + w.begin, from.begin(s) + w.end, width,
                     double(w.end - w.begin), result);
    }
  });
}

void temporal_pooling_backward(const Cpu& be, const Rows& from, const Rows& to, int64_t width,
                               In dy, InOut dx) {
  check_temporal_pooling_backward(from, to, width, dy, dx);
  if (dx.empty()) return;
  parallel_for(be, to.sequences(), [&](int64_t s) {
    if (from.length(s) == 0) return;
    for (int64_t i = 0; i < to.length(s); ++i) {
      const Window w(i, from.length(s), to.length(s));
      for (int64_t t = w.begin; t < w.end; ++t)
        add_scaled(width, real(1) / real(w.end - w.begin), dy.data() + (to.begin(s) + i) * width,
                   dx.data() + (from.begin(s) + t) * width);
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
