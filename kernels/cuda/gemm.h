// The inner part of a matrix product in real arithmetic: a block's tile, from operands that may lie
// along or across the depth. matmul, feed_forward and conv1d supply the operands and the epilogue.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL::gemm {

constexpr int kThreads = 128;
constexpr int kPack = 16 / int(sizeof(real));  // elements of a 16-byte load
constexpr int kDepth = 8 * kPack;              // terms that a step adds: 32 floats

struct alignas(16) Pack {
  real v[kPack];
};
struct alignas(16) Quad {
  real v[4];
};

/// Writes four elements to 16-byte aligned global memory. (The compiler tears plain stores of a
/// vector apart where a branch beside them writes its elements one by one.)
__device__ inline void store_vector(real* to, const real (&v)[4]) {
#ifdef DECALIGN_F64
  __stwb(reinterpret_cast<double2*>(to), make_double2(v[0], v[1]));
  __stwb(reinterpret_cast<double2*>(to) + 1, make_double2(v[2], v[3]));
#else
  __stwb(reinterpret_cast<float4*>(to), make_float4(v[0], v[1], v[2], v[3]));
#endif
}

/// kRows x kColumns of the result for a block of kThreads threads; a thread owns kHeight rows, in
/// runs of four, times four neighbouring columns. kRows and kColumns are 32 or 64.
template <int kRowsOf, int kColumnsOf>
struct Tile {
  static constexpr int kRows = kRowsOf, kColumns = kColumnsOf;
  static constexpr int kAcross = kColumns / 4, kDown = kThreads / kAcross;
  static constexpr int kHeight = kRows / kDown;
  static constexpr int kBlocks = kRows + kColumns > 96 ? 3 : 4;   // of a multiprocessor, at least
  static constexpr int kQuads = (kRows + kColumns) * kDepth / 2;  // shared memory: two stages
  static_assert(kHeight % 4 == 0);
};

template <class T>
struct Sum {
  real v[T::kHeight][4] = {};
};

/// Where the thread's part of the tile is. A warp covers 4 x 8 parts, so that its reads of shared
/// memory and its writes of a result take few transactions.
template <class T>
struct Place {
  int down, across;
  __device__ Place() {
    const int t = int(threadIdx.x), lane = t % 32, warp = t / 32;
    constexpr int kWarps = T::kAcross / 8;
    across = lane % 8 + 8 * (warp % kWarps);
    down = lane / 8 + 4 * (warp / kWarps);
  }
  __device__ int row(int i) const { return i / 4 * 4 * T::kDown + 4 * down + i % 4; }
  __device__ int column() const { return 4 * across; }
};

/// The first `count` (any number) of the kPack elements at p, `stride` apart, then zeros. `vector`:
/// p is 16-byte aligned, stride 1, and count no part of a pack.
__device__ inline Pack load_pack(const real* p, int64_t stride, int count, bool vector) {
  Pack pack;
  if (vector && count > 0) return *reinterpret_cast<const Pack*>(p);
#pragma unroll
  for (int e = 0; e < kPack; ++e) pack.v[e] = e < count ? p[e * stride] : real(0);
  return pack;
}

/// kOuter rows of an operand whose neighbours in memory are neighbours in depth: eight threads per
/// row, which is turned on its way to shared memory. Element (outer, depth) of the tile is at
/// [depth][outer ^ 4 (depth / kPack)]: no two threads of a warp meet in a bank.
template <int kOuter>
struct Along {
  static constexpr int kPasses = kOuter / 16;
  static __device__ int outer(int pass) { return int(threadIdx.x) / 8 + 16 * pass; }
  static __device__ int depth() { return kPack * (int(threadIdx.x) % 8); }
  static __device__ int turned(int depth) { return 4 * (depth / kPack); }

  static __device__ void store(const Pack (&pack)[kPasses], real* tile) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i)
#pragma unroll
      for (int e = 0; e < kPack; ++e)
        tile[(depth() + e) * kOuter + (outer(i) ^ turned(depth()))] = pack[i].v[e];
  }
};

/// The same where neighbours in memory have the same depth: [depth][outer].
template <int kOuter>
struct Across {
  static constexpr int kLanes = kOuter / kPack;
  static constexpr int kPasses = kDepth / (kThreads / kLanes);
  static __device__ int outer() { return kPack * (int(threadIdx.x) % kLanes); }
  static __device__ int depth(int pass) {
    return int(threadIdx.x) / kLanes + kThreads / kLanes * pass;
  }
  static __device__ int turned(int) { return 0; }

  static __device__ void store(const Pack (&pack)[kPasses], real* tile) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i)
      *reinterpret_cast<Pack*>(tile + depth(i) * kOuter + outer()) = pack[i];
  }
};

/// sum += A B^T over `packs` packs of depth of the staged tiles.
template <class T, class A, class B>
__device__ void add_products(const real* a, const real* b, int packs, Sum<T>& sum) {
  const Place<T> place;
#pragma unroll 2
  for (int q = 0; q < packs; ++q) {
    const int row = (4 * place.down) ^ A::turned(kPack * q);
    const int column = place.column() ^ B::turned(kPack * q);
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const Quad y = *reinterpret_cast<const Quad*>(b + (kPack * q + e) * T::kColumns + column);
#pragma unroll
      for (int h = 0; h < T::kHeight; h += 4) {
        const Quad x =
            *reinterpret_cast<const Quad*>(a + (kPack * q + e) * T::kRows + h * T::kDown + row);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum.v[h + i][j] += x.v[i] * y.v[j];
      }
    }
  }
}

/// sum += A B^T over `steps` steps. load_a(step, packs) and load_b fetch what this thread stages,
/// depth(step) <= kDepth says how much of the step there is (what is loaded beyond must be zero),
/// staged(tile of A) may read what has been staged. While one stage is used the next is on its way.
/// Ends with a barrier.
template <class T, class A, class B, class LoadA, class LoadB, class Depth, class Staged>
__device__ void multiply(Quad* memory, int steps, LoadA load_a, LoadB load_b, Depth depth,
                         Staged staged, Sum<T>& sum) {
  constexpr int kA = kDepth * T::kRows, kB = kDepth * T::kColumns;
  real* const a = reinterpret_cast<real*>(memory);
  real* const b = a + 2 * kA;
  Pack next_a[A::kPasses], next_b[B::kPasses];
  if (steps > 0) {
    load_a(0, next_a);
    load_b(0, next_b);
    A::store(next_a, a);
    B::store(next_b, b);
  }
  __syncthreads();
  for (int s = 0; s < steps; ++s) {
    const int now = s % 2;
    if (s + 1 < steps) {
      load_a(s + 1, next_a);
      load_b(s + 1, next_b);
    }
    add_products<T, A, B>(a + now * kA, b + now * kB, (depth(s) + kPack - 1) / kPack, sum);
    staged(a + now * kA);
    if (s + 1 < steps) {
      A::store(next_a, a + (1 - now) * kA);
      B::store(next_b, b + (1 - now) * kB);
    }
    __syncthreads();
  }
}

/// What is left from `begin` on, at most `most`.
__device__ inline int left(int64_t total, int64_t begin, int most) {
  return int(min(total - begin, int64_t(most)));
}
/// The depth of step s of `total` terms.
__device__ inline int step_depth(int64_t total, int s) {
  return left(total, int64_t(s) * kDepth, kDepth);
}
__host__ __device__ inline int step_count(int64_t total) {
  return int((total + kDepth - 1) / kDepth);
}

struct Nothing {
  __device__ void operator()(const real*) const {}
};

/// f(row of the tile, column of the tile, quad) for the thread's part.
template <class T, class F>
__device__ void for_quads(Sum<T>& sum, F f) {
  const Place<T> place;
#pragma unroll
  for (int i = 0; i < T::kHeight; ++i) f(place.row(i), place.column(), sum.v[i]);
}

/// from[j] for j < count, then zeros.
__device__ inline Quad load_quad(const real* from, int count, bool vector) {
  if (vector && count >= 4) return *reinterpret_cast<const Quad*>(from);
  Quad quad;
#pragma unroll
  for (int j = 0; j < 4; ++j) quad.v[j] = j < count ? from[j] : real(0);
  return quad;
}

/// to[j] = value[j] for j < count, at once where `vector` (to 16-byte aligned, count whole packs).
__device__ inline void store_quad(real* to, const real (&value)[4], int count, bool vector) {
  if (vector && count >= 4) return store_vector(to, value);
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (j < count) to[j] = value[j];
}

/// to[j] += value[j].
__device__ inline void add_quad(real* to, const real (&value)[4], int count, bool vector) {
  Quad quad = load_quad(to, count, vector);
#pragma unroll
  for (int j = 0; j < 4; ++j) quad.v[j] += value[j];
  store_quad(to, quad.v, count, vector);
}

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
/// Rows of `columns` elements, `stride` apart, can be read by packs and written by quads.
inline bool vectors(const void* p, int64_t stride, int64_t columns) {
  return aligned(p) && stride % 4 == 0 && columns % 4 == 0;
}

/// Calls f(Tile) with a tile that suits results of so many columns: `blocks(rows, columns)` says
/// how many blocks a tile of that size makes. Which tile it is changes no bit of a result.
template <class Blocks, class F>
void choose_tile(const Cuda& be, int64_t columns, Blocks blocks, F f) {
  const int64_t rest = columns % 64;
  if (rest > 0 && rest <= 32) return f(Tile<64, 32>());
  if (blocks(64, 64) >= 2 * be.multiprocessors) return f(Tile<64, 64>());
  f(Tile<32, 64>());
}

}  // namespace decalign::inline DECALIGN_REAL::gemm
