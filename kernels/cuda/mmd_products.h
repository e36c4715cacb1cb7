// A warp's share of MmdArithmetic::products: a tile of pairs on tensor cores. Every factor is split
// into two tf32 numbers, and the products of all but the two low parts are added: 22 bits of each.
#pragma once

#include "kernels/cuda/mma.h"
#include "kernels/cuda/mmd_two_sample.h"
#include "kernels/cuda/vector.h"

#ifndef DECALIGN_F64
namespace decalign::inline DECALIGN_REAL::two_sample {

using Product = Mma<Precision::tf32>;

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kGroups = 2;                   // of a warp's rows, sixteen each
constexpr int kOwn = 16 * kGroups * kWarps;  // rows of a block
constexpr int kOther = 32;                   // rows that it meets at a time
constexpr int kChunk = 64;                   // columns in shared memory, and of a block's gradient
constexpr int kPitch = kChunk + 4;           // 4 g + t are different banks, and so are 8 t + g
constexpr int kMates = kOther / 8, kColumns = kChunk / 8;  // products of a group of rows
constexpr int kHalf = kColumns / 2;                        // of them at a time

// Rows of one sample, counted through both with their padding.
struct Tile {
  int64_t first;  // padded
  int count;
  bool is_y;
};

// The two numbers of every factor.
struct Staged {
  float *high, *low;  // in shared memory: [rows][kPitch]
  __device__ Staged row(int r) const { return {high + r * kPitch, low + r * kPitch}; }
};

// `rows` rows from z, whose rows are `columns` long.
__device__ inline void stage(Staged z, int64_t columns, int rows, Staged to) {
#pragma unroll 4
  for (int i = threadIdx.x; i < rows * (kChunk / 4); i += kThreads) {
    const int r = i / (kChunk / 4), c = 4 * (i % (kChunk / 4));
    const int64_t from = r * columns + c;
    *reinterpret_cast<Four*>(to.high + r * kPitch + c) =
        *reinterpret_cast<const Four*>(z.high + from);
    *reinterpret_cast<Four*>(to.low + r * kPitch + c) =
        *reinterpret_cast<const Four*>(z.low + from);
  }
}

// The lane's part of 16 rows, or of 8, in eight neighbouring columns: t and t + 4.
__device__ inline Product::A of_sixteen(const float* rows) {
  const int lane = threadIdx.x % 32;
  const float* p = rows + lane / 4 * kPitch + lane % 4;
  return {{__float_as_uint(p[0]), __float_as_uint(p[8 * kPitch]), __float_as_uint(p[4]),
           __float_as_uint(p[8 * kPitch + 4])}};
}
__device__ inline Product::B of_eight(const float* rows) {
  const int lane = threadIdx.x % 32;
  const float* p = rows + lane / 4 * kPitch + lane % 4;
  return {{__float_as_uint(p[0]), __float_as_uint(p[4])}};
}
// Of eight columns in eight neighbouring rows: 2 t and 2 t + 1.
__device__ inline Product::B turned_eight(const float* columns) {
  const int lane = threadIdx.x % 32;
  const float* p = columns + lane % 4 * 2 * kPitch + lane / 4;
  return {{__float_as_uint(p[0]), __float_as_uint(p[kPitch])}};
}

// A warp's products with kOther rows, or for kChunk columns.
using Dots = Product::C[kGroups][kMates];
using Pulls = Product::C[kGroups][kColumns];

// dot += the warp's rows times kOther rows.
__device__ inline void add_dots(Staged own, Staged other, Dots& dot) {
#pragma unroll 1
  for (int k = 0; k < kChunk; k += 8) {
    Product::A high[kGroups], low[kGroups];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      high[i] = of_sixteen(own.row(16 * i).high + k);
      low[i] = of_sixteen(own.row(16 * i).low + k);
    }
#pragma unroll
    for (int j = 0; j < kMates; ++j) {
      const Staged eight = other.row(8 * j);
      const Product::B b = of_eight(eight.high + k), rest = of_eight(eight.low + k);
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        Product::add(low[i], b, dot[i][j]);
        Product::add(high[i], rest, dot[i][j]);
        Product::add(high[i], b, dot[i][j]);
      }
    }
  }
}

// Adds to `total` what the tile's rows pull the warp's by.
__device__ inline void add_pulls(const Dots& pull, Staged other, float factor, Pulls& total) {
#pragma unroll
  for (int half = 0; half < kColumns; half += kHalf) {
    Product::C sum[kGroups][kHalf];
#pragma unroll
    for (int r = 0; r < kMates; ++r) {
      Product::A high[kGroups], low[kGroups];
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        const float(&v)[4] = pull[i][r].value;
        high[i] = Product::a({v[0], v[1]}, {v[2], v[3]});
        float rest[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) rest[e] = v[e] - Product::rounded(v[e]);
        low[i] = Product::a({rest[0], rest[1]}, {rest[2], rest[3]});
      }
      const Staged eight = other.row(8 * r);
#pragma unroll
      for (int c = 0; c < kHalf; ++c) {
        const int column = 8 * (half + c);
        const Product::B b = turned_eight(eight.high + column),
                         rest = turned_eight(eight.low + column);
#pragma unroll
        for (int i = 0; i < kGroups; ++i) {
          Product::add(low[i], b, sum[i][c]);
          Product::add(high[i], rest, sum[i][c]);
          Product::add(high[i], b, sum[i][c]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kGroups; ++i)
#pragma unroll
      for (int c = 0; c < kHalf; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) total[i][half + c].value[e] += factor * sum[i][c].value[e];
  }
}

// The row of a lane's element e in group i: lane 4 g + t has rows g and g + 8.
__device__ inline int row_of(int i, int e) {
  return int(threadIdx.x) / 32 * 16 * kGroups + 16 * i + 8 * (e / 2) + int(threadIdx.x) % 32 / 4;
}

// What a tile adds to the sums of the lane's rows.
struct TileSums {
  float value = 0, pull[kGroups][2] = {};
};

// Products become sum_l weight_l k_l / bandwidth_l. `bandwidth`, or null: the lane's sums of
// k_l d^2, kThreads apart.
__device__ inline TileSums weigh(const Kernel* kernels, int bandwidths, const Tile& own,
                                 const Tile& other, const float* own_norm, const float* other_norm,
                                 Dots& dot, float* bandwidth) {
  const bool plain = own.count == kOwn && other.count == kOther &&
                     (other.first >= own.first + kOwn || own.first >= other.first + kOther);
  TileSums sums;
#pragma unroll
  for (int i = 0; i < kGroups; ++i)
#pragma unroll
    for (int j = 0; j < kMates; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = row_of(i, e), mate = 8 * j + 2 * (threadIdx.x % 4) + e % 2;
        const bool there = plain || (row < own.count && mate < other.count &&
                                     own.first + row != other.first + mate);
        float& v = dot[i][j].value[e];
        const float distance = max(own_norm[row] + other_norm[mate] - 2 * v, 0.0f);
        float k = 0, pulled = 0;
#pragma unroll 1
        for (int l = 0; l < bandwidths; ++l) {
          const Kernel kernel = kernels[l];
          k = kernel.square > 0 ? k * k : there ? exp2(distance * kernel.scale) : 0.0f;
          sums.value += k * kernel.weight;
          pulled += k * kernel.slope;
          if (bandwidth) bandwidth[l * kThreads] += k * distance;
        }
        sums.pull[i][e / 2] += v = pulled;
      }
  return sums;
}

struct alignas(16) Two {
  double v[2];
};

// Adds `total` to the slice's gradient, from the lane's first row and column on, and forgets it.
__device__ inline void flush(int64_t columns, bool begin, double* gradient, Pulls& total) {
#pragma unroll
  for (int i = 0; i < kGroups; ++i)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        float* const more = &total[i][c].value[e];
        // scattered: eight columns of eight rows, once in kFlush tiles
        Two& to = *reinterpret_cast<Two*>(gradient + (16 * i + 4 * e) * columns + 8 * c);
        // scattered: as above
        const Two sum = begin ? Two{} : to;
        // scattered: as above
        to = {{sum.v[0] + double(more[0]), sum.v[1] + double(more[1])}};
        more[0] = more[1] = 0;
      }
}

}  // namespace decalign::inline DECALIGN_REAL::two_sample
#endif
