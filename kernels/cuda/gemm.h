// The inner part of a matrix product: a block's tile, from operands that may lie along or across
// the depth. matmul, feed_forward and conv1d supply the operands and the epilogue.
#pragma once

#include "kernels/cuda/mma.h"

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
template <int kRowsOf, int kColumnsOf, Precision kPrecisionOf>
struct Tile {
  static constexpr int kRows = kRowsOf, kColumns = kColumnsOf;
  static constexpr Precision kPrecision = kPrecisionOf;
  static constexpr int kAcross = kColumns / 4, kDown = kThreads / kAcross;
  static constexpr int kHeight = kRows / kDown;
  static constexpr bool kLarge = kRows + kColumns > 96 || kPrecision != Precision::fp32;
  static constexpr int kBlocks = kLarge ? 3 : 4;                  // of a multiprocessor, at least
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

/// The same where neighbours in memory have the same depth: [depth][outer], turned as above only
/// for tensor cores.
template <int kOuter, Precision P>
struct Across {
  static constexpr int kLanes = kOuter / kPack;
  static constexpr int kPasses = kDepth / (kThreads / kLanes);
  static __device__ int outer() { return kPack * (int(threadIdx.x) % kLanes); }
  static __device__ int depth(int pass) {
    return int(threadIdx.x) / kLanes + kThreads / kLanes * pass;
  }
  static __device__ int turned(int depth) { return P == Precision::fp32 ? 0 : 4 * (depth / kPack); }

  static __device__ void store(const Pack (&pack)[kPasses], real* tile) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i)
      *reinterpret_cast<Pack*>(tile + depth(i) * kOuter + (outer() ^ turned(depth(i)))) = pack[i];
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

#ifndef DECALIGN_F64
/// Part of the tile on tensor cores: a warp's is kDown x kAcross products of [16, .] with [., 8].
template <class T>
struct Fragments {
  using M = Mma<T::kPrecision>;
  static constexpr int kWarps = T::kColumns / 32;  // side by side
  static constexpr int kDown = T::kRows * kWarps / (4 * 16), kAcross = 4;
  static constexpr int kStride = T::kColumns + 8;  // of the tile on its way to the threads
  static_assert(T::kRows * kStride <= 4 * T::kQuads);
  typename M::C part[kDown][kAcross];
  int row, column;  // the lane's first of a and of b

  __device__ Fragments() {
    const int warp = int(threadIdx.x) / 32, group = int(threadIdx.x) % 32 / 4;
    row = 16 * kDown * (warp / kWarps) + group;
    column = 32 * (warp % kWarps) + group;
  }
  /// The products of a whole step's staged tiles. Lane t of four takes packs 2 t and 2 t + 1: with
  /// their turns, no two lanes of a warp meet in a bank.
  __device__ void add_products(const real* a, const real* b) {
    const int pack = 2 * (int(threadIdx.x) % 4);
#pragma unroll
    for (int e = 0; e < kPack; e += M::kSlots / 2) {
      const auto read = [&](const real* tile, int outer, int stride, typename M::Slots& slots) {
#pragma unroll
        for (int j = 0; j < M::kSlots; ++j) {
          const int half = j / (M::kSlots / 2), depth = kPack * (pack + half);
          slots[j] = tile[(depth + e + j % (M::kSlots / 2)) * stride + (outer ^ depth)];
        }
      };
      typename M::Slots low, high;
      typename M::B y[kAcross];
#pragma unroll
      for (int n = 0; n < kAcross; ++n) {
        read(b, column + 8 * n, T::kColumns, low);
        y[n] = M::b(low);
      }
#pragma unroll
      for (int m = 0; m < kDown; ++m) {
        read(a, row + 16 * m, T::kRows, low);
        read(a, row + 16 * m + 8, T::kRows, high);
        const typename M::A x = M::a(low, high);
#pragma unroll
        for (int n = 0; n < kAcross; ++n) M::add(x, y[n], part[m][n]);
      }
    }
  }
  /// To the threads that the tile's elements belong to, by way of `memory`. Ends with a barrier.
  __device__ void add_to(Sum<T>& sum, Quad* memory) {
    real* const tile = reinterpret_cast<real*>(memory);
    const int pair = 2 * (int(threadIdx.x) % 4) - int(threadIdx.x) % 32 / 4;
#pragma unroll
    for (int m = 0; m < kDown; ++m)
#pragma unroll
      for (int n = 0; n < kAcross; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          *reinterpret_cast<float2*>(tile + (row + 16 * m + 8 * half) * kStride + column + 8 * n +
                                     pair) =
              make_float2(part[m][n].value[2 * half], part[m][n].value[2 * half + 1]);
    __syncthreads();
    const Place<T> place;
#pragma unroll
    for (int i = 0; i < T::kHeight; ++i) {
      const Quad quad =
          *reinterpret_cast<const Quad*>(tile + place.row(i) * kStride + place.column());
#pragma unroll
      for (int j = 0; j < 4; ++j) sum.v[i][j] += quad.v[j];
    }
    __syncthreads();
  }
};
#endif

/// What a tile's products are added to on the way.
template <class T, class A, class B>
struct Products {
  Sum<T>& sum;
  __device__ void add(const real* a, const real* b, int packs) {
    add_products<T, A, B>(a, b, packs, sum);
  }
  __device__ void finish(Quad*) {}
};
#ifndef DECALIGN_F64
template <class T, class A, class B>
requires(T::kPrecision != Precision::fp32) struct Products<T, A, B> {
  Sum<T>& sum;
  Fragments<T> fragments;
  __device__ explicit Products(Sum<T>& s) : sum(s) {}
  __device__ void add(const real* a, const real* b, int) { fragments.add_products(a, b); }
  __device__ void finish(Quad* memory) { fragments.add_to(sum, memory); }
};
#endif

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
  Products<T, A, B> products{sum};
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
    products.add(a + now * kA, b + now * kB, (depth(s) + kPack - 1) / kPack);
    staged(a + now * kA);
    if (s + 1 < steps) {
      A::store(next_a, a + (1 - now) * kA);
      B::store(next_b, b + (1 - now) * kB);
    }
    __syncthreads();
  }
  products.finish(memory);
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

/// Calls f(Tile) with a tile of be.precision that suits results of so many columns: `blocks(rows,
/// columns)` says how many blocks a tile of that size makes. Its size changes no bit of a result.
template <class Blocks, class F>
void choose_tile(const Cuda& be, int64_t columns, Blocks blocks, F f) {
  const int64_t rest = columns % 64;
  with_precision(be, [&]<Precision P>(InPrecision<P>) {
    if (rest > 0 && rest <= 32) return f(Tile<64, 32, P>());
    if (blocks(64, 64) >= 2 * be.multiprocessors) return f(Tile<64, 64, P>());
    f(Tile<32, 64, P>());
  });
}

}  // namespace decalign::inline DECALIGN_REAL::gemm
