// What the attention kernels share: sizes, where keys lie, dropout, rows of 16-byte vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/dropout_keep.h"

namespace decalign::inline DECALIGN_REAL {

constexpr int kAttentionModalities = 16;  // per launch
constexpr int kNarrowDepth = 16;          // up to here a thread holds a query

/// The unit of all accesses to shared memory.
struct alignas(16) Vector {
  real x[16 / sizeof(real)];
};
constexpr int kVector = 16 / sizeof(real);

/// Vectors from row to row of a tile in shared memory: an odd number, so that eight lanes that read
/// a vector of a row each hit different banks.
template <int D>
constexpr int kRowVectors = (D + kVector - 1) / kVector / 2 * 2 + 1;

/// The launch's sizes. Blocks are heads, then tiles of queries, then chunks of columns, the last
/// fastest.
struct AttentionSizes {
  const int64_t* first = nullptr;    // row of every sequence
  const KeyRange* ranges = nullptr;  // of every sequence
  const int* rounds = nullptr;       // of every range, null: all are in this launch
  int round = 0, sequence = 0;       // of this launch
  int batch = 0, heads = 0, depth = 0, ranges_per_sequence = 0, tiles = 1, chunks = 1;
  int64_t width = 0, key_stride = 0, query_stride = 0;
  bool causal = false;
  bool vectors = false;  // every row of a head begins at a multiple of 16 bytes
  real scale = 1;        // of the scores
  ParameterList<DeviceDropout, kAttentionModalities> dropout;
};

/// One head of one sequence, and its random numbers.
struct HeadOfBlock {
  __device__ HeadOfBlock(const AttentionSizes& s, int index)
      : sequence(s.sequence + index / s.heads), head(index % s.heads) {
    first = s.first[sequence];
    queries = int(s.first[sequence + 1] - first);
    keys = 0;
    for (int r = 0; r < s.ranges_per_sequence; ++r)
      keys += int(s.ranges[int64_t(sequence) * s.ranges_per_sequence + r].length);
    column = head * s.depth;
    if (s.dropout.count > 0) dropout = s.dropout.item[(sequence - s.sequence) / s.batch];
    if (dropout.threshold > 0) seed = dropout.state->seed, step = dropout.state->step;
  }
  /// The decisions of keys j .. j + 7 for query t; j is a multiple of 8.
  __device__ uint32_t keep_bits(const AttentionSizes& s, int t, int j) const {
    const int64_t block = ((first + t) * s.heads + head) * ((keys + 7) / 8) + j / 8;
    return device_keep_bits(dropout, seed, step, uint64_t(block));
  }
  /// The row of key j, -1 if there is none in this launch.
  __device__ int64_t key_row(const AttentionSizes& s, int j) const {
    int64_t left = j;
    for (int r = 0; r < s.ranges_per_sequence; ++r) {
      const int64_t i = int64_t(sequence) * s.ranges_per_sequence + r;
      const KeyRange range = s.ranges[i];
      if (left < range.length) return s.rounds && s.rounds[i] != s.round ? -1 : range.row + left;
      left -= range.length;
    }
    return -1;
  }
  /// Keys that some query of t .. t + count - 1 sees.
  __device__ int visible(const AttentionSizes& s, int t, int count) const {
    return s.causal ? min(keys, t + count) : keys;
  }

  int sequence, head, queries, keys, column;
  int64_t first;
  uint64_t seed = 0, step = 0;
  DeviceDropout dropout;
};

/// p[0 .. left), zeros behind.
__device__ inline Vector load_vector(const real* p, int left, bool vectors) {
  Vector v{};
  if (left <= 0) return v;
  if (vectors) return *reinterpret_cast<const Vector*>(p);
#pragma unroll
  for (int e = 0; e < kVector; ++e)
    if (e < left) v.x[e] = p[e];
  return v;
}

__device__ inline void store_vector(real* p, int left, bool vectors, const Vector& v) {
  if (left <= 0) return;
  if (vectors) {
    *reinterpret_cast<Vector*>(p) = v;
    return;
  }
#pragma unroll
  for (int e = 0; e < kVector; ++e)
    if (e < left) p[e] = v.x[e];
}

/// p += factor * v
__device__ inline void add_vector(real* p, int left, bool vectors, real factor, const Vector& v) {
  Vector sum = load_vector(p, left, vectors);
#pragma unroll
  for (int e = 0; e < kVector; ++e) sum.x[e] += factor * v.x[e];
  store_vector(p, left, vectors, sum);
}

/// A row of `depth` <= D numbers in registers.
template <int D>
struct Row {
  static constexpr int kVectors = (D + kVector - 1) / kVector;
  Vector part[kVectors];

  __device__ void clear() {
#pragma unroll
    for (int n = 0; n < kVectors; ++n) part[n] = Vector{};
  }
  __device__ void load(const real* p, int depth, bool vectors) {
#pragma unroll
    for (int n = 0; n < kVectors; ++n)
      part[n] = load_vector(p + n * kVector, depth - n * kVector, vectors);
  }
  __device__ void scale(real factor) {
#pragma unroll
    for (int n = 0; n < kVectors; ++n)
#pragma unroll
      for (int e = 0; e < kVector; ++e) part[n].x[e] *= factor;
  }
  __device__ void put(Vector* shared) const {
#pragma unroll
    for (int n = 0; n < kVectors; ++n) shared[n] = part[n];
  }
  __device__ void store(real* p, int depth, bool vectors) const {
#pragma unroll
    for (int n = 0; n < kVectors; ++n)
      store_vector(p + n * kVector, depth - n * kVector, vectors, part[n]);
  }
  __device__ void add_to(real* p, int depth, bool vectors, real factor) const {
#pragma unroll
    for (int n = 0; n < kVectors; ++n)
      add_vector(p + n * kVector, depth - n * kVector, vectors, factor, part[n]);
  }
  /// this . other
  __device__ real dot(const Vector* other) const {
    real sum = 0;
#pragma unroll
    for (int n = 0; n < kVectors; ++n) {
      const Vector v = other[n];
#pragma unroll
      for (int e = 0; e < kVector; ++e)
        if (n * kVector + e < D) sum += part[n].x[e] * v.x[e];
    }
    return sum;
  }
  /// this += factor * other
  __device__ void add(real factor, const Vector* other) {
#pragma unroll
    for (int n = 0; n < kVectors; ++n) {
      const Vector v = other[n];
#pragma unroll
      for (int e = 0; e < kVector; ++e)
        if (n * kVector + e < D) part[n].x[e] += factor * v.x[e];
    }
  }
};

constexpr real kLog2E = real(1.44269504088896340736), kLn2 = real(0.69314718055994530942);

/// f(sizes) for launches of at most kAttentionModalities modalities; sizes.tiles and .chunks are
/// still to be set. `heads` in all: sizes of the launch's grid without tiles and chunks.
template <class F>
void for_attention_launches(const Cuda& be, const AttentionShape& s,
                            std::initializer_list<const real*> arrays, F&& f) {
  AttentionSizes sizes;
  sizes.batch = int(s.queries.batch), sizes.heads = int(s.heads);
  sizes.depth = int(s.width / s.heads);
  sizes.ranges_per_sequence = int(s.ranges_per_sequence);
  sizes.width = s.width, sizes.key_stride = s.key_stride;
  sizes.query_stride = s.query_stride ? s.query_stride : s.width;
  sizes.causal = s.causal;
  sizes.scale = real(1 / std::sqrt(double(sizes.depth)));
  sizes.vectors = sizes.depth % kVector == 0 && s.key_stride % kVector == 0 &&
                  sizes.query_stride % kVector == 0;
  for (const real* p : arrays) sizes.vectors &= reinterpret_cast<uintptr_t>(p) % 16 == 0;
  for (int64_t m = 0; m < s.queries.modalities; m += kAttentionModalities) {
    const int64_t count = std::min<int64_t>(kAttentionModalities, s.queries.modalities - m);
    sizes.sequence = int(m * s.queries.batch);
    sizes.dropout.count = 0;
    for (int64_t i = 0; i < count && !s.dropout.empty(); ++i)
      sizes.dropout.item[sizes.dropout.count++] = DeviceDropout(s.dropout[size_t(m + i)]);
    sizes.first = device_list(be, s.queries.first);
    sizes.ranges = device_list(be, s.ranges);
    f(sizes, count * s.queries.batch * s.heads);
  }
}

/// Products of a query's head and a key's, of all queries and heads.
inline double attention_pairs(const AttentionShape& s) {
  double pairs = 0;
  for (int64_t i = 0; i < s.queries.sequences(); ++i) {
    int64_t keys = 0;
    for (int64_t r = 0; r < s.ranges_per_sequence; ++r)
      keys += s.ranges[size_t(i * s.ranges_per_sequence + r)].length;
    for (int64_t t = 0; t < s.queries.length(i); ++t)
      pairs += double(s.causal ? std::min(keys, t + 1) : keys);
  }
  return pairs * double(s.heads);
}
/// Beside its products, of depth numbers each: the softmax's and the dropout's share.
constexpr double kFlopsOfWeight = 16;

/// The launch of every range, such that the ranges of a launch have no row in common, with as few
/// launches as the rows' largest number of readers: sorted by their first row, every range takes
/// the first launch whose last range has ended. Empty, and 1 launch, if none overlap.
inline int attention_rounds(const AttentionShape& s, std::vector<int>& rounds) {
  std::vector<int> order;
  for (int i = 0; i < int(s.ranges.size()); ++i)
    if (s.ranges[size_t(i)].length > 0) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    const int64_t x = s.ranges[size_t(a)].row, y = s.ranges[size_t(b)].row;
    return x != y ? x < y : a < b;
  });
  std::vector<int64_t> end;  // of every launch's last range
  rounds.assign(s.ranges.size(), 0);
  for (const int i : order) {
    const KeyRange& range = s.ranges[size_t(i)];
    const auto fits =
        std::find_if(end.begin(), end.end(), [&](int64_t e) { return e <= range.row; });
    rounds[size_t(i)] = int(fits - end.begin());
    if (fits == end.end()) end.push_back(0);
    end[size_t(rounds[size_t(i)])] = range.row + range.length;
  }
  if (end.size() <= 1) rounds.clear();
  return std::max(1, int(end.size()));
}

}  // namespace decalign::inline DECALIGN_REAL
