#include "kernels/conv1d.h"

#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/conv1d.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 98;     // rows per task where sequences follow each other
constexpr int64_t kTaps = 64;     // rows of the packed weight per task
constexpr int64_t kColumns = 64;  // columns of the weight gradient per task
constexpr int64_t kShort = 128;   // windows up to this are summed in double, which costs little
constexpr int64_t kDepth = 128;   // products that are summed up before they join those before them

// The `kernel` steps that make one row of y lie one after the other in x, so the convolution is a
// product of overlapping rows of `span` elements with the weight as [channels, kernel, width].
int64_t window(const Conv1dShape& s) { return s.kernel * s.width; }

// The samples as runs of rows: one for each sequence, or a single one where rows of y follow each
// other as those of x do.
struct Runs {
  Runs(const Conv1dShape& shape, const Rows& all) : s(shape), rows(all) {
    for (int64_t b = 0; b < s.batch; ++b)
      whole = whole && all.length(s.modality * s.batch + b) == s.steps;
  }
  int64_t count() const { return whole ? std::min<int64_t>(s.batch, 1) : s.batch; }
  int64_t length(int64_t i) const {
    return whole ? s.batch * s.steps : rows.length(s.modality * s.batch + i);
  }
  int64_t y_row(int64_t i) const { return rows.begin(s.modality * s.batch + i); }
  int64_t x_row(int64_t i) const { return i * s.steps; }
  const Conv1dShape& s;
  const Rows& rows;
  bool whole = s.kernel == 1;
};

// The weight in pieces of kDepth rows l = u * width + i, each in panels as multiply() wants them.
void pack_windows(const Cpu& be, const Conv1dShape& s, In weight, real* packed) {
  const int64_t k = window(s), n = s.channels;
  parallel_ranges(be, s.width, kTaps, [&](int64_t begin, int64_t end) {
    for (int64_t j0 = 0; j0 < n; j0 += 2 * kLanes) {
      const int64_t columns = std::min(n - j0, 2 * kLanes), wide = round_up(columns, kLanes);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t u = 0; u < s.kernel; ++u) {
          const int64_t l = u * s.width + i, first = l / kDepth * kDepth;
          real* to = packed + first * round_up(n, kLanes) + j0 * std::min(k - first, kDepth) +
                     (l - first) * wide;
          for (int64_t j = 0; j < wide; j += kLanes)
            store(to + j, load_strided(weight.data() + ((j0 + j) * s.width + i) * s.kernel + u, k,
                                       std::min(columns - j, kLanes)));
        }
    }
  });
}

// y [rows, n] = overlapping rows of x times the packed weight. By pieces, so that the rounding
// errors of long sums stay small.
void multiply_windows(int64_t rows, int64_t k, int64_t n, const real* x, int64_t ldx,
                      const real* packed, real* y) {
  for (int64_t first = 0; first < k; first += kDepth)
    multiply(rows, std::min(k - first, kDepth), n, x + first, ldx,
             packed + first * round_up(n, kLanes), nullptr, y, n,
             first == 0 ? Store::overwrite : Store::add);
}

// The same with every sum in double; packed is [k, n].
void multiply_short(int64_t rows, int64_t k, int64_t n, const real* x, int64_t ldx,
                    const double* packed, real* y) {
  constexpr int64_t kChunk = 64;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j0 = 0; j0 < n; j0 += kChunk) {
      const int64_t count = std::min(kChunk, n - j0);
      double sum[kChunk] = {};
      for (int64_t l = 0; l < k; ++l) {
        const double value = double(x[r * ldx + l]), *w = packed + l * n + j0;
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) sum[j] += value * w[j];
      }
      for (int64_t j = 0; j < count; ++j) y[r * n + j0 + j] = real(sum[j]);
    }
}

}  // namespace

size_t conv1d_scratch_bytes(const Cpu&, const Conv1dShape& s) {
  // Forward: the packed weight. Backward: the weight gradient as [channels, window] and, for dx,
  // the packed weight.
  return std::max(window(s) <= kShort ? carve_bytes<double>(window(s) * s.channels)
                                      : carve_bytes<real>(packed_size(window(s), s.channels)),
                  carve_bytes<real>(s.channels * window(s)) +
                      size_t(s.kernel) * carve_bytes<real>(packed_size(s.channels, s.width)) +
                      carve_bytes<real>(s.channels * s.width));
}

void conv1d_forward(const Cpu& be, const Conv1dShape& s, const Rows& rows, In x, In weight, Out y,
                    Scratch scratch) {
  check_conv1d_forward(s, rows, x, weight, y, scratch, conv1d_scratch_bytes(be, s));
  const int64_t k = window(s), n = s.channels;
  const bool brief = k <= kShort;
  real* packed = carve<real>(scratch, 0);
  double* precise = carve<double>(scratch, 0);
  if (brief)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l)
        precise[l * n + j] =
            double(weight[size_t((j * s.width + l % s.width) * s.kernel + l / s.width)]);
  else
    pack_windows(be, s, weight, packed);
  const auto run = [&](int64_t count, const real* from, real* to) {
    if (brief)
      multiply_short(count, k, n, from, s.width, precise, to);
    else
      multiply_windows(count, k, n, from, s.width, packed, to);
  };
  const Runs runs(s, rows);
  if (runs.whole)
    parallel_ranges(be, s.batch * s.steps, kRows, [&](int64_t begin, int64_t end) {
      run(end - begin, x.data() + begin * s.width, y.data() + (runs.y_row(0) + begin) * n);
    });
  else
    parallel_for(be, runs.count(), [&](int64_t i) {
      run(runs.length(i), x.data() + runs.x_row(i) * s.width, y.data() + runs.y_row(i) * n);
    });
}

void conv1d_backward(const Cpu& be, const Conv1dShape& s, const Rows& rows, In x, In weight, In dy,
                     InOut dx, InOut dweight, Scratch scratch) {
  check_conv1d_backward(s, rows, x, weight, dy, dx, dweight, scratch, conv1d_scratch_bytes(be, s));
  const int64_t k = window(s), n = s.channels;
  real* gradient = carve<real>(scratch, n * k);
  const Runs runs(s, rows);
  if (!dweight.empty())
    parallel_ranges(be, k, kColumns, [&](int64_t begin, int64_t end) {
      for (int64_t j = 0; j < n; ++j) std::fill_n(gradient + j * k + begin, end - begin, real(0));
      for (int64_t i = 0; i < runs.count(); ++i)
        add_outer(runs.length(i), n, end - begin, dy.data() + runs.y_row(i) * n, n,
                  x.data() + runs.x_row(i) * s.width + begin, s.width, gradient + begin, k);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t l = begin; l < end; ++l)
          dweight[size_t((j * s.width + l % s.width) * s.kernel + l / s.width)] +=
              gradient[j * k + l];
    });
  if (dx.empty() || s.width == 0) return;
  const int64_t stride = int64_t(carve_bytes<real>(packed_size(n, s.width)) / sizeof(real));
  real* packed = carve<real>(scratch, stride * s.kernel);
  real* tap = carve<real>(scratch, n * s.width);
  for (int64_t u = 0; u < s.kernel; ++u) {
    for (int64_t e = 0; e < n * s.width; ++e) tap[e] = weight[size_t(e * s.kernel + u)];
    pack(tap, s.width, n, s.width, packed + u * stride);
  }
  parallel_for(be, s.batch, [&](int64_t b) {
    const int64_t sequence = s.modality * s.batch + b;
    for (int64_t u = 0; u < s.kernel; ++u)
      multiply(rows.length(sequence), n, s.width, dy.data() + rows.begin(sequence) * n, n,
               packed + u * stride, nullptr, dx.data() + (b * s.steps + u) * s.width, s.width,
               Store::add);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
