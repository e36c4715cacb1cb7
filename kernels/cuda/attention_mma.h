// Attention of wide heads on tensor cores: the products of attention_tile.h, a warp per 16 rows.
#pragma once

#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/mma.h"

namespace decalign::inline DECALIGN_REAL {

/// Of a tile of scores or gradients, warp w's row i of 16, such that its lanes hold the same rows
/// between the products (see kTileThreads).
struct OwnRows {
  static __device__ int row(int i) { return 4 * (int(threadIdx.x) / 32) + i % 4 + 16 * (i / 4); }
};
/// Neighbouring rows, as add_weighted_queries has them.
struct NextRows {
  static __device__ int row(int i) { return 16 * (int(threadIdx.x) / 32) + i; }
};

#ifndef DECALIGN_F64

/// A warp's 16 rows of kColumns columns.
template <Precision P, int kColumns>
struct RowProducts {
  using M = Mma<P>;
  static constexpr int kHalf = M::kSlots / 2, kAcross = kColumns / 8;
  typename M::C part[kAcross];

  /// += a b over a depth of kDepth: a(row of 16, l), b(l, column) with l what slot (t, half, j) of
  /// l0 .. l0 + M::kDepth - 1 stands for.
  template <int kDepth, class A, class B, class Place>
  __device__ void add(A a, B b, Place place) {
    const int group = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll 2
    for (int l0 = 0; l0 < kDepth; l0 += M::kDepth) {
      typename M::Slots low, high;
      const auto at = [&](int j) { return l0 + place(t, j / kHalf, j % kHalf); };
#pragma unroll
      for (int j = 0; j < M::kSlots; ++j) low[j] = a(group, at(j)), high[j] = a(group + 8, at(j));
      const typename M::A x = M::a(low, high);
#pragma unroll
      for (int n = 0; n < kAcross; ++n) {
#pragma unroll
        for (int j = 0; j < M::kSlots; ++j) low[j] = b(at(j), 8 * n + group);
        M::add(x, M::b(low), part[n]);
      }
    }
  }
  /// Row i to slot(i), for the lanes of the warp to read.
  template <class Slot>
  __device__ void put(Slot slot) {
    const int group = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int n = 0; n < kAcross; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<float2*>(slot(group + 8 * half) + 8 * n + 2 * t) =
            make_float2(part[n].value[2 * half], part[n].value[2 * half + 1]);
    __syncwarp();
  }
};

#endif

/// The three products of attention_tile.h in P. `pass` is shared memory of a tile of weights, in
/// which a warp writes the rows that it alone reads: in fp32 it is not touched.
template <int D, Precision P>
struct TileProducts {
  static constexpr bool kTensor = P != Precision::fp32;

  /// score += a b^T. Uses the own rows of `pass`.
  static __device__ void add_scores(const Vector* a, const Vector* b, TileScores& score,
                                    [[maybe_unused]] real* pass) {
#ifndef DECALIGN_F64
    if constexpr (kTensor) {
      RowProducts<P, kTileKeys> sum;
      // Four lanes' slots lie side by side: a row is an odd number of vectors, so none meet in a
      // bank.
      sum.template add<D>(
          [&](int i, int l) { return row_of(a, OwnRows::row(i))[l]; },
          [&](int l, int j) { return row_of(b, j)[l]; },
          [](int t, int half, int j) { return t + 4 * (RowProducts<P, 8>::kHalf * half + j); });
      sum.put([&](int i) { return pass + OwnRows::row(i) * kWeightStride; });
      const int row = threadIdx.x / 8, column = threadIdx.x % 8;
#pragma unroll
      for (int r = 0; r < kTileRows; ++r)
#pragma unroll
        for (int c = 0; c < kTileColumns; ++c)
          score[r][c] += pass[(row + 16 * r) * kWeightStride + column + 8 * c];
      return;
    } else
#endif
      decalign::add_scores<D>(a, b, score);
  }

  /// sum += weights b. The rows of b, and of weights its columns, from `keys` to the tile's end are
  /// 0. Uses the rows `slot(i)`, which may be those of `weights` that the warp alone reads.
  template <class Slot>
  static __device__ void add_weighted_keys(const real* weights, const Vector* b, int keys,
                                           TileRows<kTileRows, D>& sum,
                                           [[maybe_unused]] Slot slot) {
#ifndef DECALIGN_F64
    if constexpr (kTensor) {
      RowProducts<P, D> product;
      product.template add<kTileKeys>(
          [&](int i, int l) { return weights[OwnRows::row(i) * kWeightStride + l]; },
          [&](int l, int c) { return row_of(b, l)[c]; }, every_other);
      __syncwarp();
      product.put(slot);
      const int lane = threadIdx.x % 32, column = lane % 8;
#pragma unroll
      for (int r = 0; r < kTileRows; ++r) add_row(sum.part[r], slot(lane / 8 + 4 * r), column);
      return;
    } else
#endif
      decalign::add_weighted_keys<D>(weights, b, keys, sum);
  }

  /// sum += weights^T a. The rows of a and of weights from `queries` to the tile's end are finite
  /// and 0. Uses the rows `slot(i)`, not of `weights`.
  template <class Slot>
  static __device__ void add_weighted_queries(const real* weights, const Vector* a, int queries,
                                              TileRows<kVector, D>& sum,
                                              [[maybe_unused]] Slot slot) {
#ifndef DECALIGN_F64
    if constexpr (kTensor) {
      RowProducts<P, D> product;
      product.template add<kTileQueries>(
          [&](int i, int l) { return weights[l * kWeightStride + NextRows::row(i)]; },
          [&](int l, int c) { return row_of(a, l)[c]; }, every_other);
      __syncwarp();
      product.put(slot);
      const int lane = threadIdx.x % 32, column = lane % 8;
#pragma unroll
      for (int i = 0; i < kVector; ++i) add_row(sum.part[i], slot(lane / 8 * kVector + i), column);
      return;
    } else
#endif
      decalign::add_weighted_queries<D>(weights, a, queries, sum);
  }

 private:
  static __device__ const real* row_of(const Vector* tile, int row) {
    return reinterpret_cast<const real*>(tile + row * kRowVectors<D>);
  }
#ifndef DECALIGN_F64
  // Lanes take every other row of a tile, so that the rows' vectors between lie in other banks.
  static __device__ int every_other(int t, int half, int j) {
    constexpr int kHalf = Mma<P>::kSlots / 2;
    return 2 * t + (kHalf == 1 ? half : 8 * half + j);
  }
  template <int kParts>
  static __device__ void add_row(Vector (&part)[kParts], const real* from, int column) {
#pragma unroll
    for (int n = 0; n < kParts; ++n) {
      const Vector v = *reinterpret_cast<const Vector*>(from + (column + 8 * n) * kVector);
#pragma unroll
      for (int e = 0; e < kVector; ++e) part[n].x[e] += v.x[e];
    }
  }
#endif
};

}  // namespace decalign::inline DECALIGN_REAL
