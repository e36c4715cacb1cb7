#include "kernels/sample_moments.h"

#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/sample_moments.h"
#include "kernels/cpu/comoments.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/wide.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kChunk = 2048;    // rows of a task
constexpr int64_t kStrip = 512;     // columns of a task: their sums stay in the first-level cache
constexpr int64_t kVisit = 16;      // rows that sums stay in registers for
constexpr int64_t kBackward = 256;  // rows of a task of the way back

struct Sums {
  Wide first, second, third;
};

// One vector of columns of `rows` rows about `pilot`.
template <bool Whole>
void add_rows(int64_t rows, const real* x, int64_t ld, int64_t last, const Wide& pilot,
              Sums& total) {
  Sums s = total;
  for (int64_t i = 0; i < rows; ++i, x += ld) {
    const Wide v = widen(Whole ? load(x) : load_partial(x, last));
#pragma GCC unroll 2
    for (int w = 0; w < kWides; ++w) {
      const vdouble y = v.part[w] - pilot.part[w], y2 = y * y;
      s.first.part[w] += y;
      s.second.part[w] += y2;
      s.third.part[w] += y2 * y;
    }
  }
  total = s;
}

// The mean of the first rows: were one of them far off, it would be so by little. A power of two of
// them, added in pairs: of equal rows it is exactly their value.
Wide pilot_of(int64_t rows, const real* x, int64_t ld, int64_t columns) {
  int count = 1;
  while (2 * count <= std::min(rows, kVisit)) count *= 2;
  Wide sum[kVisit];
  for (int i = 0; i < count; ++i) sum[i] = widen(load_partial(x + i * ld, columns));
  for (int half = count / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
  for (int w = 0; w < kWides; ++w) sum[0].part[w] *= 1.0 / count;
  return sum[0];
}

// mean, M2, M3 [columns] of some rows and at most kStrip columns.
void collect_strip(int64_t rows, int64_t columns, const real* x, int64_t ld, double* mean,
                   double* m2, double* m3) {
  Sums sums[kStrip / kLanes] = {};
  Wide pilot[kStrip / kLanes];
  const int64_t vectors = piece_count(columns, kLanes), last = columns - (vectors - 1) * kLanes;
  for (int64_t v = 0; v < vectors; ++v)
    pilot[v] = pilot_of(rows, x + v * kLanes, ld, v + 1 < vectors ? kLanes : last);
  for (int64_t i = 0; i < rows; i += kVisit) {
    const int64_t count = std::min(kVisit, rows - i);
    const real* row = x + i * ld;
    for (int64_t v = 0; v < vectors; ++v) {
      if (v + 1 < vectors || last == kLanes)
        add_rows<true>(count, row + v * kLanes, ld, last, pilot[v], sums[v]);
      else
        add_rows<false>(count, row + v * kLanes, ld, last, pilot[v], sums[v]);
    }
  }
  const double n = double(rows);
  for (int64_t j = 0; j < columns; ++j) {
    const Sums& s = sums[j / kLanes];
    const int part = int(j % kLanes / kWideLanes), lane = int(j % kWideLanes);
    const double first = s.first.part[part][lane], second = s.second.part[part][lane],
                 third = s.third.part[part][lane], m = first / n;
    mean[j] = pilot[j / kLanes].part[part][lane] + m;
    m2[j] = std::max(second - m * first, 0.0);
    m3[j] = third - m * (3 * second - 2 * m * first);
  }
}

// dx [columns] += shift + y (slope + curve y), y = x - mean; `column` holds the four, a vector of
// each in turn. Row by row: writing several rows side by side takes twice the time.
template <bool Whole>
void pull_row(int64_t columns, const real* x, const double* column, real* dx) {
  for (int64_t j = 0; j < columns; j += kLanes, column += 4 * kLanes) {
    const Wide mean = load_wide(column), shift = load_wide(column + kLanes),
               slope = load_wide(column + 2 * kLanes), curve = load_wide(column + 3 * kLanes);
    const int64_t count = Whole ? kLanes : std::min(columns - j, kLanes);
    const Wide v = widen(Whole ? load(x + j) : load_partial(x + j, count));
    Wide pull;
#pragma GCC unroll 2
    for (int w = 0; w < kWides; ++w) {
      const vdouble y = v.part[w] - mean.part[w];
      pull.part[w] = shift.part[w] + y * (slope.part[w] + curve.part[w] * y);
    }
    if (Whole)
      store(dx + j, load(dx + j) + narrow(pull));
    else
      store_partial(dx + j, load_partial(dx + j, count) + narrow(pull), count);
  }
}

}  // namespace

size_t sample_moments_scratch_bytes(const Cpu& be, const SampleMomentsShape& s) {
  const size_t chunks = carve_bytes<double>(piece_count(s.rows, kChunk) * 3 * s.width);
  const size_t pulls = carve_bytes<double>(4 * round_up(s.width, kLanes));
  return std::max(chunks, pulls) +
         (s.covariance ? comoments_scratch_bytes(be, s.rows, s.width) : 0);
}

void sample_moments_collect(const Cpu& be, const SampleMomentsShape& s, In x, MomentsState state,
                            Scratch scratch) {
  check_sample_moments_collect(s, x, state, scratch, sample_moments_scratch_bytes(be, s));
  const int64_t d = s.width, chunks = piece_count(s.rows, kChunk), strips = piece_count(d, kStrip);
  double* const parts = carve<double>(scratch, chunks * 3 * d);
  const auto rows_of = [&](int64_t chunk) { return std::min(kChunk, s.rows - chunk * kChunk); };
  parallel_for(be, chunks * strips, [&](int64_t task) {
    const int64_t chunk = task / strips, j = task % strips * kStrip;
    double* part = parts + chunk * 3 * d + j;
    collect_strip(rows_of(chunk), std::min(kStrip, d - j), x.data() + chunk * kChunk * d + j, d,
                  part, part + d, part + 2 * d);
  });
  std::fill(state.begin(), state.end(), 0.0);
  if (s.rows == 0) return;
  state[0] = double(s.rows);
  double *mean = state.data() + 1, *m2 = mean + d, *m3 = m2 + d;
  parallel_ranges(be, d, kStrip, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const double *part = parts + chunk * 3 * d, a = double(chunk * kChunk),
                   b = double(rows_of(chunk));
      for (int64_t j = begin; j < end; ++j)
        merge_column(a, b, part[j], part[d + j], part[2 * d + j], mean[j], m2[j], m3[j]);
    }
  });
  if (s.covariance) comoments(be, s.rows, d, x.data(), mean, m3 + d, scratch);
}

void sample_moments_merge(const Cpu&, const SampleMomentsShape& s, InMomentsState other,
                          MomentsState state) {
  check_moments_state(s, other);
  check_moments_state(s, state);
  const double a = state[0], b = other[0];
  if (b == 0) return;
  const int64_t d = s.width;
  double *mean = state.data() + 1, *m2 = mean + d, *m3 = m2 + d, *c = m3 + d;
  const double *mean2 = other.data() + 1, *c2 = mean2 + 3 * d;
  if (s.covariance)
    for (int64_t j = 0; j < d; ++j) {
      const double e = (mean2[j] - mean[j]) * (a * b / (a + b));
      for (int64_t l = 0; l < d; ++l) c[j * d + l] += c2[j * d + l] + e * (mean2[l] - mean[l]);
    }
  for (int64_t j = 0; j < d; ++j)
    merge_column(a, b, mean2[j], mean2[d + j], mean2[2 * d + j], mean[j], m2[j], m3[j]);
  state[0] = a + b;
}

void sample_moments_forward(const Cpu&, const SampleMomentsShape& s, InMomentsState state, Out mean,
                            Out variance, Out skewness, Out covariance) {
  check_moments_state(s, state);
  check_sample_moments_statistics(s, mean, variance, skewness, covariance);
  const int64_t d = s.width;
  const double n = state[0], divisor = moments_divisor(n, s.correction);
  const double *mu = state.data() + 1, *m2 = mu + d, *m3 = m2 + d, *c = m3 + d;
  for (size_t j = 0; j < mean.size(); ++j) mean[j] = real(mu[j]);
  for (size_t j = 0; j < variance.size(); ++j) variance[j] = real(m2[j] / divisor);
  for (size_t j = 0; j < skewness.size(); ++j)
    skewness[j] = n > 0 ? real(skewness_of(n, m2[j], m3[j], s.variance_floor)) : real(0);
  for (size_t j = 0; j < covariance.size(); ++j) covariance[j] = real(c[j] / divisor);
}

void sample_moments_backward(const Cpu& be, const SampleMomentsShape& s, In x, InMomentsState state,
                             In dmean, In dvariance, In dskewness, In dcovariance, InOut dx,
                             Scratch scratch) {
  check_sample_moments_backward(s, x, state, dmean, dvariance, dskewness, dcovariance, dx, scratch,
                                sample_moments_scratch_bytes(be, s));
  if (dx.empty()) return;
  const int64_t d = s.width;
  const double n = state[0], divisor = moments_divisor(n, s.correction);
  const double *mean = state.data() + 1, *m2 = mean + d, *m3 = m2 + d;
  double* const columns = carve<double>(scratch, 4 * round_up(d, kLanes));
  const auto at = [](In v, int64_t j) { return v.empty() ? 0 : double(v[size_t(j)]); };
  for (int64_t j = 0; j < round_up(d, kLanes); ++j) {  // four vectors for each vector of columns
    double* to = columns + j / kLanes * 4 * kLanes + j % kLanes;
    const ColumnPull p = j < d ? column_pull(n, m2[j], m3[j], divisor, s.variance_floor,
                                             at(dmean, j), at(dvariance, j), at(dskewness, j))
                               : ColumnPull{};
    to[0] = j < d ? mean[j] : 0, to[kLanes] = p.shift, to[2 * kLanes] = p.slope;
    to[3 * kLanes] = p.curve;
  }
  if (!dcovariance.empty()) pack_pull(d, dcovariance.data(), 1 / divisor, scratch);
  parallel_ranges(be, s.rows, kBackward, [&](int64_t begin, int64_t end) {
    const int64_t whole = d - d % kLanes;
    for (int64_t i = begin; i < end; ++i) {
      const real* row = x.data() + i * d;
      real* to = dx.data() + i * d;
      pull_row<true>(whole, row, columns, to);
      pull_row<false>(d - whole, row + whole, columns + 4 * whole, to + whole);
    }
    if (!dcovariance.empty())
      pull_rows(end - begin, d, x.data() + begin * d, mean, scratch, dx.data() + begin * d);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
