#include "kernels/cpu/double_tile.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace decalign::inline DECALIGN_REAL {
namespace {

#ifdef __AVX512F__
constexpr int kBlock = 4;  // x 4 vectors: 16 accumulators
#else
constexpr int kBlock = 2;
#endif
constexpr int kV = int(kTileVectors);

inline vdouble get(const double* p) { return *reinterpret_cast<const vdouble_unaligned*>(p); }
inline void put(double* p, vdouble v) { *reinterpret_cast<vdouble_unaligned*>(p) = v; }
inline vdouble all(double x) { return x - vdouble{}; }

// Calls f with std::integral_constant<int, min(rows, kBlock)>, rows >= 1.
template <class F>
[[gnu::always_inline]] inline void with_rows(int64_t rows, F&& f) {
  if constexpr (kBlock == 4) {
    if (rows >= 4) return f(std::integral_constant<int, 4>());
    if (rows >= 3) return f(std::integral_constant<int, 3>());
  }
  if (rows >= 2) return f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 1>());
}

// acc[r] (+)= sum over i in [begin, end) of a(r, i) e[i], a(r, i) = a[r * row + i * step]; sign -1
// subtracts.
template <int R, int sign>
[[gnu::always_inline]] inline void accumulate(const double* a, int64_t row, int64_t step,
                                              int64_t begin, int64_t end, const double* e,
                                              vdouble (&acc)[R][kV]) {
  for (int64_t i = begin; i < end; ++i) {
    vdouble x[kV];
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) x[v] = get(e + i * kTileRows + v * kDoubleLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vdouble w = all(a[r * row + i * step]);
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v)
        if constexpr (sign > 0)
          acc[r][v] += w * x[v];
        else
          acc[r][v] -= w * x[v];
    }
  }
}

template <int R>
[[gnu::always_inline]] inline void read_rows(const double* y, vdouble (&acc)[R][kV]) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) acc[r][v] = get(y + r * kTileRows + v * kDoubleLanes);
}

template <int R>
[[gnu::always_inline]] inline void write_rows(const vdouble (&acc)[R][kV], double* y) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) put(y + r * kTileRows + v * kDoubleLanes, acc[r][v]);
}

template <int R>
void solve_lower_rows(int64_t j0, const double* u, int64_t ld, double* y, vdouble (&square)[kV]) {
  vdouble acc[R][kV];
  read_rows<R>(y + j0 * kTileRows, acc);
  accumulate<R, -1>(u + j0, 1, ld, 0, j0, y, acc);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < r; ++p) {
      const vdouble w = all(u[(j0 + p) * ld + j0 + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) acc[r][v] -= w * acc[p][v];
    }
    const vdouble inverse = all(1 / u[(j0 + r) * ld + j0 + r]);
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      acc[r][v] *= inverse;
      square[v] += acc[r][v] * acc[r][v];
    }
  }
  write_rows<R>(acc, y + j0 * kTileRows);
}

template <int R>
void solve_upper_rows(int64_t i0, int64_t d, const double* u, int64_t ld, double* y) {
  vdouble acc[R][kV];
  read_rows<R>(y + i0 * kTileRows, acc);
  accumulate<R, -1>(u + i0 * ld, ld, 1, i0 + R, d, y, acc);
#pragma GCC unroll 4
  for (int r = R - 1; r >= 0; --r) {
#pragma GCC unroll 4
    for (int p = r + 1; p < R; ++p) {
      const vdouble w = all(u[(i0 + r) * ld + i0 + p]);
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) acc[r][v] -= w * acc[p][v];
    }
    const vdouble inverse = all(1 / u[(i0 + r) * ld + i0 + r]);
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) acc[r][v] *= inverse;
  }
  write_rows<R>(acc, y + i0 * kTileRows);
}

// c[r] (+)= sum_n a[n, r] b[n, 0 .. NV vectors), sign -1 subtracts.
template <int R, int NV, int sign>
void outer_block(int64_t rows, const double* a, const double* b, int64_t ld, double* c) {
  vdouble acc[R][NV];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = get(c + r * ld + v * kDoubleLanes);
  for (int64_t n = 0; n < rows; ++n, a += ld, b += ld) {
    vdouble x[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) x[v] = get(b + v * kDoubleLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vdouble w = all(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v)
        if constexpr (sign > 0)
          acc[r][v] += w * x[v];
        else
          acc[r][v] -= w * x[v];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) put(c + r * ld + v * kDoubleLanes, acc[r][v]);
}

template <int sign>
void outer(int64_t height, int64_t vectors, int64_t rows, const double* a, const double* b,
           int64_t ld, double* c) {
  with_rows(height, [&](auto r) {
    constexpr int R = decltype(r)::value;
    if (vectors == 4) return outer_block<R, 4, sign>(rows, a, b, ld, c);
    if (vectors == 3) return outer_block<R, 3, sign>(rows, a, b, ld, c);
    if (vectors == 2) return outer_block<R, 2, sign>(rows, a, b, ld, c);
    outer_block<R, 1, sign>(rows, a, b, ld, c);
  });
}

// Rows [begin, end) of the upper triangle of c (+)= a^T b, columns from the block of the row on.
template <int sign>
void outer_upper(int64_t begin, int64_t end, int64_t d, int64_t rows, const double* a,
                 const double* b, double* c) {
  const int64_t ld = matrix_stride(d);
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t height = std::min<int64_t>(kBlock, end - i);
    for (int64_t j = i / kDoubleLanes * kDoubleLanes; j < d; j += kTileRows) {
      const int64_t vectors = std::min(kTileVectors, (d - j + kDoubleLanes - 1) / kDoubleLanes);
      outer<sign>(height, vectors, rows, a + i, b + j, ld, c + i * ld + j);
    }
  }
}

}  // namespace

void cholesky(int64_t d, double least, double* a) {
  const int64_t ld = matrix_stride(d);
  constexpr int64_t kPanel = 8;
  for (int64_t top = 0; top < d; top += kPanel) {
    const int64_t bottom = std::min(d, top + kPanel);
    outer_upper<-1>(top, bottom, d, top, a, a, a);
    for (int64_t j = top; j < bottom; ++j) {
      double* row = a + j * ld;
      for (int64_t i = top; i < j; ++i) {
        const double w = a[i * ld + j], *above = a + i * ld;
#pragma omp simd
        for (int64_t l = j; l < d; ++l) row[l] -= w * above[l];
      }
      const double pivot = std::sqrt(row[j] > least ? row[j] : least), inverse = 1 / pivot;
#pragma omp simd
      for (int64_t l = j; l < d; ++l) row[l] *= inverse;
      row[j] = pivot;
    }
  }
}

void solve_lower(int64_t d, const double* u, double* y, double* squares) {
  const int64_t ld = matrix_stride(d);
  vdouble square[kV] = {};
  for (int64_t j = 0; j < d; j += kBlock)
    with_rows(d - j, [&](auto r) { solve_lower_rows<decltype(r)::value>(j, u, ld, y, square); });
  if (squares)
    for (int v = 0; v < kV; ++v) put(squares + v * kDoubleLanes, square[v]);
}

void solve_upper(int64_t d, const double* u, double* y) {
  const int64_t ld = matrix_stride(d);
  for (int64_t i = (d - 1) / kBlock * kBlock; i >= 0 && d > 0; i -= kBlock)
    with_rows(d - i, [&](auto r) { solve_upper_rows<decltype(r)::value>(i, d, u, ld, y); });
}

void multiply_tile(int64_t d, const double* a, const double* e, double* out) {
  const int64_t ld = matrix_stride(d);
  for (int64_t i = 0; i < d; i += kBlock)
    with_rows(d - i, [&](auto r) {
      constexpr int R = decltype(r)::value;
      vdouble acc[R][kV] = {};
      accumulate<R, 1>(a + i * ld, ld, 1, 0, d, e, acc);
      write_rows<R>(acc, out + i * kTileRows);
    });
}

void add_symmetric(int64_t rows, int64_t d, const double* a, const double* b, double* c) {
  outer_upper<1>(0, d, d, rows, a, b, c);
}

void invert_symmetric(int64_t d, const double* u, double* inverse, double* work) {
  const int64_t ld = matrix_stride(d);
  // work = W = U^-T, lower triangular: row j = (e_j - sum_{i < j} U_ij W_i) / U_jj.
  for (int64_t j = 0; j < d; ++j) {
    double* row = work + j * ld;
    std::fill_n(row, ld, 0.0);
    row[j] = 1;
    for (int64_t i = 0; i < j; ++i) {
      const double w = u[i * ld + j], *above = work + i * ld;
      const int64_t end = round_up(i + 1, kDoubleLanes);
#pragma omp simd
      for (int64_t l = 0; l < end; ++l) row[l] -= w * above[l];
    }
    const double scale = 1 / u[j * ld + j];
    for (int64_t l = 0; l <= j; ++l) row[l] *= scale;
  }
  // The inverse is W^T W; rows of W above a column's index do not reach it.
  std::fill_n(inverse, d * ld, 0.0);
  for (int64_t i = 0; i < d; i += kBlock)
    for (int64_t j = i / kDoubleLanes * kDoubleLanes; j < d; j += kTileRows) {
      const int64_t vectors = std::min(kTileVectors, (d - j + kDoubleLanes - 1) / kDoubleLanes);
      const int64_t from = std::max(i, j);
      outer<1>(std::min<int64_t>(kBlock, d - i), vectors, d - from, work + from * ld + i,
               work + from * ld + j, ld, inverse + i * ld + j);
    }
}

}  // namespace decalign::inline DECALIGN_REAL
