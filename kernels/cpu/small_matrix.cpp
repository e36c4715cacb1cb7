#include "kernels/cpu/small_matrix.h"

#include <array>

namespace decalign::inline DECALIGN_REAL::small {
namespace {

#ifdef __AVX512F__
constexpr int kTileRows = 14;  // 2 x 14 accumulators, 2 vectors, 1 broadcast: 31 registers
#else
constexpr int kTileRows = 6;
#endif
constexpr int64_t kPanel = 2 * kDoubles;

// MR rows and NV vectors of a b.
template <int MR, int NV>
void product_tile(const Left& a, int64_t depth, const double* b, int64_t ld, double* c) {
  vdouble sum[MR][NV] = {};
  const double* left = a.at;
  for (int64_t l = 0; l < depth; ++l, left += a.column, b += ld) {
    vdouble row[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) row[v] = vector_at(b + v * kDoubles);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vdouble x = left[i * a.row] - vdouble{};
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sum[i][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) vector_at(c + i * ld + v * kDoubles) = sum[i][v];
}

using Tile = void (*)(const Left&, int64_t, const double*, int64_t, double*);
template <int NV, size_t... I>
constexpr std::array<Tile, kTileRows> tiles_of(std::index_sequence<I...>) {
  return {&product_tile<int(I) + 1, NV>...};
}
using Heights = std::make_index_sequence<size_t(kTileRows)>;
constexpr std::array<Tile, kTileRows> kTiles[2] = {tiles_of<1>(Heights{}), tiles_of<2>(Heights{})};

// The columns of a panel that starts at column j.
void product_panel(int64_t rows, int64_t depth, int64_t ld, int64_t j, const Left& a,
                   const double* b, double* c) {
  const auto& kernels = kTiles[ld - j > kDoubles];
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t top = rows * i / tiles, height = rows * (i + 1) / tiles - top;
    kernels[size_t(height - 1)]({a.at + top * a.row, a.row, a.column}, depth, b + j, ld,
                                c + top * ld + j);
  }
}

// The transpose of the square block at `from`, of which `rows` rows exist, to `to`, of which
// `columns` rows do.
void transpose_block(int64_t rows, int64_t columns, const double* from, int64_t lda, double* to,
                     int64_t ldb) {
  vdouble m[kDoubles];
#pragma GCC unroll 8
  for (int i = 0; i < int(kDoubles); ++i) m[i] = i < rows ? vector_at(from + i * lda) : vdouble{};
  decalign::transpose(m);
#pragma GCC unroll 8
  for (int i = 0; i < int(kDoubles); ++i)
    if (i < columns) vector_at(to + i * ldb) = m[i];
}

}  // namespace

void product(int64_t rows, int64_t depth, int64_t columns, const Left& a, const double* b,
             double* c) {
  const int64_t ld = stride(columns);
  for (int64_t j = 0; j < ld; j += kPanel) product_panel(rows, depth, ld, j, a, b, c);
}

void symmetric_product(int64_t n, int64_t depth, const Left& a, const double* b, double* c) {
  const int64_t ld = stride(n);
  for (int64_t j = 0; j < ld; j += kPanel)
    product_panel(std::min(n, j + kPanel), depth, ld, j, a, b, c);
  for (int64_t i = kDoubles; i < n; i += kDoubles)
    for (int64_t j = 0; j < i; j += kDoubles)
      transpose_block(kDoubles, n - i, c + j * ld + i, ld, c + i * ld + j, ld);
}

void transpose(int64_t rows, int64_t columns, const double* a, double* b) {
  const int64_t lda = stride(columns), ldb = stride(rows);
  for (int64_t i = 0; i < columns; i += kDoubles)
    for (int64_t j = 0; j < rows; j += kDoubles)
      transpose_block(rows - j, columns - i, a + j * lda + i, lda, b + i * ldb + j, ldb);
}

double square_sum(const double* a, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * a[i];
  return sum;
}

}  // namespace decalign::inline DECALIGN_REAL::small
