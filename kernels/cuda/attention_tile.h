// Attention of wide heads: products of tiles in shared memory, 128 threads as 16 rows of 8.
#pragma once

#include "kernels/cuda/attention_shape.h"

namespace decalign::inline DECALIGN_REAL {

/// Thread (row, column) holds queries row + 16 r and keys column + 8 c of a tile of scores, r <
/// kTileRows, c < kTileColumns, and vectors column + 8 n of a row of D columns. The eight threads
/// of a row are in one warp.
constexpr int kTileThreads = 128, kTileRows = 16 / int(sizeof(real)),
              kTileColumns = 32 / int(sizeof(real)), kTileQueries = 16 * kTileRows,
              kTileKeys = 8 * kTileColumns;
/// Numbers from row to row of a tile of weights [queries, keys].
constexpr int kWeightStride = kTileKeys + 8;

/// Columns chunk * D .. of the rows row_of(0) .. row_of(rows - 1) (-1: zeros) of `from` into `to`.
template <int D, class F>
__device__ void stage_tile(const AttentionSizes& s, const real* from, int64_t stride, int column,
                           int chunk, int rows, F&& row_of, Vector* to) {
  constexpr int kVectors = D / kVector;
  for (int i = threadIdx.x; i < rows * kVectors; i += kTileThreads) {
    const int r = i / kVectors, n = i % kVectors, c = chunk * D + n * kVector;
    const int64_t row = row_of(r);
    to[r * kRowVectors<D> + n] =
        row < 0 ? Vector{} : load_vector(from + row * stride + column + c, s.depth - c, s.vectors);
  }
}

using TileScores = real[kTileRows][kTileColumns];

/// score += a b^T, a [queries, D], b [keys, D]
template <int D>
__device__ void add_scores(const Vector* a, const Vector* b, TileScores& score) {
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
#pragma unroll 2
  for (int n = 0; n < D / kVector; ++n) {
    Vector x[kTileRows];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) x[r] = a[(row + 16 * r) * kRowVectors<D> + n];
#pragma unroll
    for (int c = 0; c < kTileColumns; ++c) {
      const Vector y = b[(column + 8 * c) * kRowVectors<D> + n];
#pragma unroll
      for (int r = 0; r < kTileRows; ++r)
#pragma unroll
        for (int e = 0; e < kVector; ++e) score[r][c] += x[r].x[e] * y.x[e];
    }
  }
}

/// Vectors column + 8 n of some rows.
template <int Rows, int D>
struct TileRows {
  static constexpr int kParts = D / kVector / 8;
  Vector part[Rows][kParts] = {};
};

/// sum += weights b over the first `keys` keys, weights [queries, keys], b [keys, D]
template <int D>
__device__ void add_weighted_keys(const real* weights, const Vector* b, int keys,
                                  TileRows<kTileRows, D>& sum) {
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
#pragma unroll 1
  for (int k = 0; k < keys; k += kVector) {
    Vector w[kTileRows];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r)
      w[r] = *reinterpret_cast<const Vector*>(weights + (row + 16 * r) * kWeightStride + k);
#pragma unroll
    for (int i = 0; i < kVector; ++i)
#pragma unroll
      for (int n = 0; n < sum.kParts; ++n) {
        const Vector v = b[(k + i) * kRowVectors<D> + column + 8 * n];
#pragma unroll
        for (int r = 0; r < kTileRows; ++r)
#pragma unroll
          for (int e = 0; e < kVector; ++e) sum.part[r][n].x[e] += w[r].x[i] * v.x[e];
      }
  }
}

/// sum += weights^T a over the first `queries` queries, a [queries, D]; the thread's rows are keys
/// row * kVector ...
template <int D>
__device__ void add_weighted_queries(const real* weights, const Vector* a, int queries,
                                     TileRows<kVector, D>& sum) {
  static_assert(16 * kVector == kTileKeys);
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
#pragma unroll 4
  for (int t = 0; t < queries; ++t) {
    const Vector w = *reinterpret_cast<const Vector*>(weights + t * kWeightStride + row * kVector);
#pragma unroll
    for (int n = 0; n < sum.kParts; ++n) {
      const Vector v = a[t * kRowVectors<D> + column + 8 * n];
#pragma unroll
      for (int i = 0; i < kVector; ++i)
#pragma unroll
        for (int e = 0; e < kVector; ++e) sum.part[i][n].x[e] += w.x[i] * v.x[e];
    }
  }
}

/// The decisions of a tile. The eight threads of a row share the Philox calls: keys 8 c .. 8 c + 7
/// of a query are theirs, one each.
struct TileKeep {
  uint32_t bits =
      0;  // a byte for calls column, column + 8, ... of the row's kTileRows kTileColumns
  bool on;

  /// All threads take part.
  __device__ TileKeep(const AttentionSizes& s, const HeadOfBlock& h, int t0, int j0)
      : on(h.dropout.threshold > 0) {
    if (!on) return;
    const int row = threadIdx.x / 8, column = threadIdx.x % 8;
#pragma unroll
    for (int m = 0; m < kTileRows * kTileColumns / 8; ++m) {
      const int call = column + 8 * m, r = call / kTileColumns, c = call % kTileColumns;
      bits |= h.keep_bits(s, t0 + row + 16 * r, j0 + 8 * c) << (8 * m);
    }
  }
  /// Whether the thread's (r, c) is kept. All threads take part.
  __device__ bool kept(int r, int c) const {
    if (!on) return true;
    const int call = r * kTileColumns + c, lane = threadIdx.x % 32;
    const uint32_t theirs = __shfl_sync(0xffffffffu, bits, (lane & 24) | (call % 8));
    return theirs >> (8 * (call / 8) + lane % 8) & 1;
  }
};

/// Over the eight threads of a row.
__device__ inline real row_max(real v) {
#pragma unroll
  for (int offset = 4; offset > 0; offset /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, offset));
  return v;
}
__device__ inline real row_sum(real v) {
#pragma unroll
  for (int offset = 4; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

}  // namespace decalign::inline DECALIGN_REAL
