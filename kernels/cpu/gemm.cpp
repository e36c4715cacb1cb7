#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <array>
#include <utility>

namespace decalign::inline DECALIGN_REAL {
namespace {

#ifdef __AVX512F__
constexpr int kTileRows = 14;  // 2 x 14 accumulators, 2 panel vectors, 1 broadcast: 31 registers
#else
constexpr int kTileRows = 6;
#endif

// Blocks of the operand that is read by broadcasts, packed tile by tile: [depth, kTileStride] each,
// so that a tile lies in the inner caches whatever the stride of its source.
constexpr int64_t kTileStride = round_up(kTileRows, kLanes);
constexpr int64_t kDepth = 1024 / int64_t(sizeof(real));  // of a packed tile
constexpr int64_t kFetchDepth = 2 * kDepth;
constexpr int64_t kBlockTiles = 14;
constexpr int64_t kLineElements = 64 / int64_t(sizeof(real));
constexpr int64_t kPanelLines = std::max<int64_t>(2 * kLanes / kLineElements, 1);

struct alignas(64) PackedBlock {
  real data[kBlockTiles * kDepth * kTileStride];
  real* tile(int64_t i) { return data + i * kDepth * kTileStride; }
};

struct Tile {
  int64_t k;
  const real* a;
  int64_t lda;
  const real* b;
  int64_t ldb;
  const real* bias;
  real* c;
  int64_t ldc;
  int64_t last;  // columns of the last vector
  Store mode;
  const real* next;   // what to fetch meanwhile,
  int64_t next_step;  // bytes per step of k
};

template <int MR, int NV>
[[gnu::always_inline]] inline void write(const Tile& t, vreal (&acc)[MR][NV]) {
  const vreal zero{};
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    real* c = t.c + i * t.ldc;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const int64_t count = v + 1 == NV ? t.last : kLanes;
      vreal value = acc[i][v];
      if (t.mode == Store::relu) value = value > zero ? value : zero;
      if (count == kLanes) {
        if (t.mode == Store::add) value += load(c + v * kLanes);
        store(c + v * kLanes, value);
      } else {
        if (t.mode == Store::add) value += load_partial(c + v * kLanes, count);
        store_partial(c + v * kLanes, value, count);
      }
    }
  }
}

// acc[i][.] = bias + sum_l a[i, l] b[l, .]
template <int MR, int NV, bool Fetch>
void multiply_tile(const Tile& t) {
  vreal acc[MR][NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) {
    vreal start{};
    if (t.bias) start = load_partial(t.bias + v * kLanes, v + 1 == NV ? t.last : kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) acc[i][v] = start;
  }
  const real* a = t.a;
  const real* b = t.b;
  const int64_t lda = t.lda;
  const char* next = reinterpret_cast<const char*>(t.next);
  for (int64_t l = 0; l < t.k; ++l, ++a, b += NV * kLanes) {
    if (Fetch) __builtin_prefetch(next, 0, 2), next += t.next_step;
    vreal column[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vreal x = broadcast(a[i * lda]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += x * column[v];
    }
  }
  write<MR, NV>(t, acc);
}

// acc[i][.] = sum_r a[r, i] b[r, .]
template <int MR, int NV, bool Whole>
void outer_tile(const Tile& t) {
  vreal acc[MR][NV] = {};
  const real* a = t.a;
  const real* b = t.b;
  const char* next = reinterpret_cast<const char*>(t.next);
  for (int64_t r = 0; r < t.k; ++r, a += t.lda, b += t.ldb, next += t.next_step) {
    __builtin_prefetch(next, 0, 2);
    vreal row[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v)
      row[v] = Whole || v + 1 < NV ? load(b + v * kLanes) : load_partial(b + v * kLanes, t.last);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vreal x = broadcast(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += x * row[v];
    }
  }
  write<MR, NV>(t, acc);
}

using TileKernel = void (*)(const Tile&);

template <int NV, bool Fetch, size_t... I>
constexpr std::array<TileKernel, kTileRows> multiply_kernels(std::index_sequence<I...>) {
  return {&multiply_tile<int(I) + 1, NV, Fetch>...};
}
template <int NV, bool Whole, size_t... I>
constexpr std::array<TileKernel, kTileRows> outer_kernels(std::index_sequence<I...>) {
  return {&outer_tile<int(I) + 1, NV, Whole>...};
}
using Tiles = std::make_index_sequence<size_t(kTileRows)>;
constexpr std::array<TileKernel, kTileRows> kMultiply[2][2] = {
    {multiply_kernels<1, false>(Tiles{}), multiply_kernels<1, true>(Tiles{})},
    {multiply_kernels<2, false>(Tiles{}), multiply_kernels<2, true>(Tiles{})}};
constexpr std::array<TileKernel, kTileRows> kOuter[2][2] = {
    {outer_kernels<1, false>(Tiles{}), outer_kernels<1, true>(Tiles{})},
    {outer_kernels<2, false>(Tiles{}), outer_kernels<2, true>(Tiles{})}};

// to [k, to_stride], columns 0 .. kLanes - 1 = the transpose of `rows` <= kLanes rows of from
// (stride ld), scaled, columns beyond `rows` 0.
void transpose_rows(const real* from, int64_t ld, int64_t rows, int64_t k, real scale, real* to,
                    int64_t to_stride) {
  for (int64_t l = 0; l < k; l += kLanes) {
    const int64_t count = std::min(k - l, kLanes);
    vreal m[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < int(kLanes); ++i)
      m[i] = i < rows ? load_partial(from + i * ld + l, count) : vreal{};
    transpose(m);
    if (count == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < int(kLanes); ++i) store(to + (l + i) * to_stride, scale * m[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) store(to + (l + i) * to_stride, scale * m[i]);
    }
  }
}

}  // namespace

void pack(const real* w, int64_t ldw, int64_t k, int64_t n, real* packed) {
  for (int64_t j0 = 0; j0 < n; j0 += 2 * kLanes) {
    const int64_t columns = std::min(n - j0, 2 * kLanes), width = round_up(columns, kLanes);
    real* panel = packed + j0 * k;
    for (int64_t l = 0; l < k; ++l) {
      const real* from = w + l * ldw + j0;
      for (int64_t j = 0; j < width; j += kLanes)
        store(panel + l * width + j, load_partial(from + j, std::min(columns - j, kLanes)));
    }
  }
}

void pack_transposed(const real* w, int64_t ldw, int64_t k, int64_t n, real* packed) {
  for (int64_t j0 = 0; j0 < n; j0 += 2 * kLanes) {
    const int64_t columns = std::min(n - j0, 2 * kLanes), width = round_up(columns, kLanes);
    for (int64_t j = 0; j < width; j += kLanes)
      transpose_rows(w + (j0 + j) * ldw, ldw, std::min(columns - j, kLanes), k, 1,
                     packed + j0 * k + j, width);
  }
}

void multiply(int64_t rows, int64_t k, int64_t n, const real* a, int64_t lda, const real* packed,
              const real* bias, real* c, int64_t ldc, Store mode) {
  const int64_t tiles = piece_count(rows, kTileRows);
  // Every tile fetches its part of the next panel if that is large and may lie far out.
  const int64_t part = rows > 0 ? 2 * kLanes * int64_t(sizeof(real)) / tiles : 0;
  for (int64_t j0 = 0; j0 < n; j0 += 2 * kLanes) {
    const int64_t columns = std::min(n - j0, 2 * kLanes);
    const int vectors = columns > kLanes ? 2 : 1;
    const real* panel = packed + j0 * k;
    const bool more = k >= kFetchDepth && n - j0 >= 4 * kLanes;
    const real* next = more ? panel + 2 * kLanes * k : panel;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t r = piece_begin(rows, tiles, i), height = piece_begin(rows, tiles, i + 1) - r;
      kMultiply[vectors - 1][more][size_t(height - 1)](
          {k, a + r * lda, lda, panel, 0, bias ? bias + j0 : nullptr, c + r * ldc + j0, ldc,
           columns - (vectors - 1) * kLanes, mode, next, more ? part : 0});
      if (more) next += k * part / int64_t(sizeof(real));
    }
  }
}

namespace {

// As add_outer, with packed operands, for m of up to kBlockTiles tiles.
void add_outer_block(int64_t rows, int64_t m, int64_t n, const real* a, int64_t lda, const real* b,
                     int64_t ldb, real* c, int64_t ldc) {
  PackedBlock block;
  alignas(64) real panel[kDepth * 2 * kLanes];
  const int64_t tiles = piece_count(m, kTileRows), chunks = piece_count(rows, kDepth);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t r0 = piece_begin(rows, chunks, chunk),
                  count = piece_begin(rows, chunks, chunk + 1) - r0;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t top = piece_begin(m, tiles, i), height = piece_begin(m, tiles, i + 1) - top;
      for (int64_t r = 0; r < count; ++r)
        for (int64_t s = 0; s < height; s += kLanes)
          store(block.tile(i) + r * kTileStride + s,
                load_partial(a + (r0 + r) * lda + top + s, std::min(height - s, kLanes)));
    }
    for (int64_t j0 = 0, slot = 0; j0 < n; j0 += 2 * kLanes) {
      const int64_t columns = std::min(n - j0, 2 * kLanes);
      const int vectors = columns > kLanes ? 2 : 1;
      pack(b + r0 * ldb + j0, ldb, count, columns, panel);
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t top = piece_begin(m, tiles, i), height = piece_begin(m, tiles, i + 1) - top;
        // Meanwhile fetches a line of every row of the next panel or of the next chunk of a.
        const real* next = panel;
        int64_t step = 0;
        if (i < kPanelLines && j0 + 2 * kLanes < n)
          next = b + r0 * ldb + j0 + 2 * kLanes + i * kLineElements, step = ldb;
        else if (i < kPanelLines && chunk + 1 < chunks)
          next = b + (r0 + count) * ldb + i * kLineElements, step = ldb;
        else if (const int64_t at = slot * kLineElements; chunk + 1 < chunks && at < m)
          next = a + (r0 + count) * lda + at, step = lda, ++slot;
        kOuter[vectors - 1][1][size_t(height - 1)](
            {count, block.tile(i), kTileStride, panel, vectors * kLanes, nullptr,
             c + top * ldc + j0, ldc, columns - (vectors - 1) * kLanes, Store::add, next,
             step * int64_t(sizeof(real))});
      }
    }
  }
}

}  // namespace

void add_outer_wide(int64_t rows, int64_t m, int64_t n, const real* a, int64_t lda, const real* b,
                    int64_t ldb, real* c, int64_t ldc) {
  const int64_t blocks = piece_count(m, kBlockTiles * kTileRows);
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t top = piece_begin(m, blocks, i), height = piece_begin(m, blocks, i + 1) - top;
    add_outer_block(rows, height, n, a + top, lda, b, ldb, c + top * ldc, ldc);
  }
}

void add_outer(int64_t rows, int64_t m, int64_t n, const real* a, int64_t lda, const real* b,
               int64_t ldb, real* c, int64_t ldc) {
  // Rows far apart fall into few sets of the L1 cache, so that only few of them stay there.
  const int64_t stride = std::max(lda, ldb) * int64_t(sizeof(real));
  const int64_t chunks = piece_count(rows, stride >= 512 ? 40 : 128);
  const int64_t tiles = piece_count(m, kTileRows);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t r0 = piece_begin(rows, chunks, chunk),
                  count = piece_begin(rows, chunks, chunk + 1) - r0;
    for (int64_t j0 = 0; j0 < n; j0 += 2 * kLanes) {
      const int64_t columns = std::min(n - j0, 2 * kLanes);
      const int vectors = columns > kLanes ? 2 : 1;
      const int64_t last = columns - (vectors - 1) * kLanes;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t top = piece_begin(m, tiles, i), height = piece_begin(m, tiles, i + 1) - top;
        kOuter[vectors - 1][last == kLanes][size_t(height - 1)](
            {count, a + r0 * lda + top, lda, b + r0 * ldb + j0, ldb, nullptr, c + top * ldc + j0,
             ldc, last, Store::add, b + r0 * ldb + j0, 0});
      }
    }
  }
}

void add_columns(int64_t rows, int64_t n, const real* a, int64_t lda, real* c) {
  for (int64_t j = 0; j < n; j += kLanes) {
    const int64_t count = std::min(n - j, kLanes);
    vreal even{}, odd{};
    int64_t r = 0;
    for (; r + 1 < rows; r += 2) {
      even += load_partial(a + r * lda + j, count);
      odd += load_partial(a + (r + 1) * lda + j, count);
    }
    if (r < rows) even += load_partial(a + r * lda + j, count);
    store_partial(c + j, load_partial(c + j, count) + (even + odd), count);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
