// A tile of pairs of rows: squared distances, and what a kernel's slopes pull rows by. Both are
// shaped as matrix products of differences: one subtraction more a term, and nothing cancels.
#pragma once

#include <array>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/wide.h"

namespace decalign::inline DECALIGN_REAL::mmd_tile {

#ifdef __AVX512F__
constexpr int kDistanceRows = 12, kPullRows = 6;  // with two vectors: 32 registers
#else
constexpr int kDistanceRows = 4, kPullRows = 2;
#endif
constexpr int64_t kTile = 128;  // rows on either side

/// out[i][.] = sum_l (panel[l, .] - a[i, l])^2
struct Distances {
  int64_t width;
  const real* a;      // rows, `width` apart
  const real* panel;  // [width, NV kLanes], packed
  real* out;          // rows, kTile apart
};

template <int MR, int NV>
void distances(const Distances& t) {
  vreal acc[MR][NV] = {};
  const real *a = t.a, *panel = t.panel;
  for (int64_t l = 0; l < t.width; ++l, ++a, panel += NV * kLanes) {
    vreal column[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) column[v] = load(panel + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vreal x = broadcast(a[i * t.width]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        const vreal e = column[v] - x;
        acc[i][v] += e * e;
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(t.out + i * kTile + v * kLanes, acc[i][v]);
}

/// sum[i][.] += factor sum_k slope[i, k] (other[k][.] - own[i][.])
struct Pull {
  int64_t width, count;  // of a row; others
  const real* slope;
  int64_t slope_row, slope_other;  // strides
  const real *own, *other;         // rows, `width` apart
  double factor;
  double* sum;
  int64_t last;  // columns of the last vector
};

template <int MR, int NV, bool Whole>
void pull(const Pull& t) {
  const auto columns = [&](const real* p, int v) {
    return Whole || v + 1 < NV ? load(p + v * kLanes) : load_partial(p + v * kLanes, t.last);
  };
  vreal acc[MR][NV] = {}, own[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) own[i][v] = columns(t.own + i * t.width, v);
  const real *slope = t.slope, *other = t.other;
  for (int64_t k = 0; k < t.count; ++k, slope += t.slope_other, other += t.width) {
    vreal row[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) row[v] = columns(other, v);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const vreal g = broadcast(slope[i * t.slope_row]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += g * (row[v] - own[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      double* to = t.sum + i * t.width + v * kLanes;
      const Wide more = widen(acc[i][v]);
      if (Whole || v + 1 < NV) {
        Wide sum = load_wide(to);
        for (int w = 0; w < kWides; ++w) sum.part[w] += t.factor * more.part[w];
        store_wide(to, sum);
      } else {
        double values[kLanes];
        store_wide(values, more);
        for (int64_t j = 0; j < t.last; ++j) to[j] += t.factor * values[j];
      }
    }
}

template <int NV, size_t... I>
constexpr auto distance_kernels(std::index_sequence<I...>) {
  return std::array{&distances<int(I) + 1, NV>...};
}
using PullKernels = std::array<void (*)(const Pull&), kPullRows>;
template <int NV, bool Whole, size_t... I>
constexpr PullKernels pull_kernels(std::index_sequence<I...>) {
  return {&pull<int(I) + 1, NV, Whole>...};
}

/// out [rows, columns], kTile apart: squared distances of the rows of `a` from those packed (by
/// pack_transposed). What lies beyond `columns` up to whole vectors is overwritten.
inline void all_distances(int64_t width, const real* a, int64_t rows, const real* packed,
                          int64_t columns, real* out) {
  static constexpr auto one = distance_kernels<1>(std::make_index_sequence<kDistanceRows>{});
  static constexpr auto two = distance_kernels<2>(std::make_index_sequence<kDistanceRows>{});
  const int64_t tiles = piece_count(rows, kDistanceRows);
  for (int64_t j = 0; j < columns; j += 2 * kLanes)
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t r = piece_begin(rows, tiles, i), count = piece_begin(rows, tiles, i + 1) - r;
      (columns - j > kLanes ? two : one)[size_t(count - 1)](
          {width, a + r * width, packed + j * width, out + r * kTile + j});
    }
}

/// The Pull `t` of `rows` rows.
inline void pull_all(Pull t, int64_t rows) {
  static constexpr PullKernels kernels[2] = {
      pull_kernels<1, false>(std::make_index_sequence<kPullRows>{}),
      pull_kernels<2, false>(std::make_index_sequence<kPullRows>{})};
  static constexpr PullKernels whole[2] = {
      pull_kernels<1, true>(std::make_index_sequence<kPullRows>{}),
      pull_kernels<2, true>(std::make_index_sequence<kPullRows>{})};
  const int64_t tiles = piece_count(rows, kPullRows);
  for (int64_t j = 0; j < t.width; j += 2 * kLanes) {
    const int64_t columns = std::min(t.width - j, 2 * kLanes);
    const int more = columns > kLanes ? 1 : 0;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t r = piece_begin(rows, tiles, i), count = piece_begin(rows, tiles, i + 1) - r;
      Pull part = t;
      part.slope += r * t.slope_row;
      part.own += r * t.width + j, part.other += j, part.sum += r * t.width + j;
      part.last = columns - more * kLanes;
      (part.last == kLanes ? whole : kernels)[more][size_t(count - 1)](part);
    }
  }
}

}  // namespace decalign::inline DECALIGN_REAL::mmd_tile
