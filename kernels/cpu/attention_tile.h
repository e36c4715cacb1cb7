// What both directions of attention share: validation, tasks, gathered keys, scores of a tile.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check/attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"

namespace decalign::inline DECALIGN_REAL {

constexpr int64_t kTileQueries = 64, kTileKeys = 128, kTileDepth = 64;

inline int64_t key_count(const AttentionShape& s, int64_t sequence) {
  int64_t keys = 0;
  for (int64_t r = 0; r < s.ranges_per_sequence; ++r)
    keys += s.ranges[size_t(sequence * s.ranges_per_sequence + r)].length;
  return keys;
}

/// One head of one sequence: where its columns of each array begin.
struct AttentionHead {
  AttentionHead(const AttentionShape& s, int64_t sequence_, int64_t head_)
      : sequence(sequence_),
        head(head_),
        depth(s.width / s.heads),
        queries(s.queries.length(sequence)),
        keys(key_count(s, sequence)),
        first_query(s.queries.begin(sequence)),
        query_stride(s.query_stride ? s.query_stride : s.width),
        column(head * depth),
        query_offset(first_query * query_stride + column),
        out_offset(first_query * s.width + column),
        scale(real(1 / std::sqrt(double(depth)))),
        keep(s.dropout.empty() ? Dropout{} : s.dropout[size_t(sequence / s.queries.batch)]) {}
  int64_t sequence, head, depth, queries, keys, first_query, query_stride, column, query_offset,
      out_offset;
  real scale;
  KeepStream keep;

  /// The decisions of keys [j0, j0 + count) for query t; j0 is a multiple of 8.
  void keep_run(const AttentionShape& s, int64_t t, int64_t j0, int64_t count,
                uint8_t* bits) const {
    const int64_t blocks_per_query = (keys + 7) / 8;
    const int64_t first = ((first_query + t) * s.heads + head) * blocks_per_query + j0 / 8;
    keep_bits(keep, uint64_t(first), (count + 7) / 8, bits);
  }
};

/// f(row, first key, length) for the runs of rows that hold keys [j0, j0 + count).
template <class F>
void for_key_runs(const AttentionShape& s, int64_t sequence, int64_t j0, int64_t count, F f) {
  int64_t position = 0;
  for (int64_t r = 0; r < s.ranges_per_sequence; ++r) {
    const KeyRange range = s.ranges[size_t(sequence * s.ranges_per_sequence + r)];
    const int64_t low = std::max(j0, position),
                  high = std::min(j0 + count, position + range.length);
    if (low < high) f(range.row + low - position, low - j0, high - low);
    position += range.length;
  }
}

/// packed [depth, count] (see gemm.h) = scale * columns c0.. of keys [j0, j0 + count), transposed.
template <int Depth>
void pack_keys_transposed(const AttentionShape& s, const AttentionHead& h, int64_t j0,
                          int64_t count, int64_t c0, int64_t any_depth, const real* keys,
                          real scale, real* packed) {
  const int64_t depth = Depth ? Depth : any_depth;
  const auto place = [&](int64_t j) {
    const int64_t panel = j / (2 * kLanes) * (2 * kLanes);
    const int64_t width = count - panel > kLanes ? 2 * kLanes : kLanes;
    return std::pair(packed + panel * depth + (j - panel), width);
  };
  for_key_runs(s, h.sequence, j0, count, [&](int64_t row, int64_t first, int64_t length) {
    for (int64_t i = 0; i < length; ++i) {
      const real* from = keys + (row + i) * s.key_stride + h.column + c0;
      const auto [to, width] = place(first + i);
      for (int64_t c = 0; c < depth; ++c) to[c * width] = scale * from[c];
    }
  });
  for (int64_t j = count; j < round_up(count, kLanes); ++j) {
    const auto [to, width] = place(j);
    for (int64_t c = 0; c < depth; ++c) to[c * width] = 0;
  }
}

/// The same for heads of at least one vector: blocks of keys are transposed in registers.
inline void pack_wide_keys_transposed(const AttentionShape& s, const AttentionHead& h, int64_t j0,
                                      int64_t count, int64_t c0, int64_t depth, const real* keys,
                                      real scale, real* packed) {
  const real* rows[kTileKeys];
  for_key_runs(s, h.sequence, j0, count, [&](int64_t row, int64_t first, int64_t length) {
    for (int64_t i = 0; i < length; ++i)
      rows[first + i] = keys + (row + i) * s.key_stride + h.column + c0;
  });
  for (int64_t j = 0; j < count; j += kLanes) {
    const int64_t panel = j / (2 * kLanes) * (2 * kLanes), present = std::min(count - j, kLanes);
    const int64_t width = count - panel > kLanes ? 2 * kLanes : kLanes;
    real* to = packed + panel * depth + (j - panel);
    for (int64_t c = 0; c < depth; c += kLanes) {
      const int64_t columns = std::min(depth - c, kLanes);
      vreal m[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < int(kLanes); ++i)
        m[i] = i < present ? load_partial(rows[j + i] + c, columns) * scale : vreal{};
      transpose(m);
      for (int64_t i = 0; i < columns; ++i) store(to + (c + i) * width, m[i]);
    }
  }
}

/// packed [count, depth] (see gemm.h) = columns c0.. of keys [j0, j0 + count).
inline void pack_keys(const AttentionShape& s, const AttentionHead& h, int64_t j0, int64_t count,
                      int64_t c0, int64_t depth, const real* keys, real* packed) {
  for_key_runs(s, h.sequence, j0, count, [&](int64_t row, int64_t first, int64_t length) {
    for (int64_t c = 0; c < depth; c += 2 * kLanes) {
      const int64_t columns = std::min(depth - c, 2 * kLanes), width = round_up(columns, kLanes);
      const real* from = keys + row * s.key_stride + h.column + c0 + c;
      real* to = packed + c * count + first * width;
      for (int64_t i = 0; i < length; ++i)
        for (int64_t v = 0; v < width; v += kLanes)
          store(to + i * width + v,
                load_partial(from + i * s.key_stride + v, std::min(columns - v, kLanes)));
    }
  });
}

/// c [queries, kTileKeys] = scale * rows of a (stride lda) times keys [j0, j0 + count) of `keys`;
/// columns up to the next multiple of kLanes are written, too.
inline void key_products(const AttentionShape& s, const AttentionHead& h, int64_t queries,
                         const real* a, int64_t lda, const real* keys, int64_t j0, int64_t count,
                         real scale, real* c) {
  alignas(64) real packed[packed_size(kTileDepth, kTileKeys)];
  for (int64_t c0 = 0; c0 < h.depth; c0 += kTileDepth) {
    const int64_t depth = std::min(h.depth - c0, kTileDepth);
    if (depth >= kLanes)
      pack_wide_keys_transposed(s, h, j0, count, c0, depth, keys, scale, packed);
    else if (depth == 8)
      pack_keys_transposed<8>(s, h, j0, count, c0, depth, keys, scale, packed);
    else
      pack_keys_transposed<0>(s, h, j0, count, c0, depth, keys, scale, packed);
    multiply(queries, depth, round_up(count, kLanes), a + c0, lda, packed, nullptr, c, kTileKeys,
             c0 == 0 ? Store::overwrite : Store::add);
  }
}

/// How many of the keys [j0, j0 + count) query t sees.
inline int64_t visible(const AttentionShape& s, int64_t t, int64_t j0, int64_t count) {
  return s.causal ? std::clamp<int64_t>(t + 1 - j0, 0, count) : count;
}

/// task(sequence, head) for every head, with all heads of a sequence in one task where there are
/// sequences enough: heads share cache lines.
template <class F>
void for_heads(const Cpu& be, const AttentionShape& s, F task) {
  constexpr int64_t kEnough = 32;
  const int64_t sequences = s.queries.sequences();
  if (sequences >= kEnough)
    parallel_for(be, sequences, [&](int64_t i) {
      for (int64_t h = 0; h < s.heads; ++h) task(i, h);
    });
  else
    parallel_for(be, sequences * s.heads, [&](int64_t i) { task(i / s.heads, i % s.heads); });
}

}  // namespace decalign::inline DECALIGN_REAL
