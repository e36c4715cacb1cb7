#include "kernels/check/attention.h"
#include "kernels/cuda/attention_mma.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr real kInfinity = std::numeric_limits<real>::infinity();

constexpr int kNarrowQueries = 64, kNarrowKeys = 128;  // of a block

// A thread per query, eight keys at a time (one Philox call); keys and values are broadcast from
// shared memory. Scores are in units of ln 2.
template <int D>
__global__ void __launch_bounds__(kNarrowQueries, 8)
    narrow_forward_kernel(const __grid_constant__ AttentionSizes s, const real* q, const real* k,
                          const real* v, real* out, real* lse) {
  constexpr int kStride = kRowVectors<D>;
  SHARED(Vector, keys, [kNarrowKeys * kStride]);
  SHARED(Vector, values, [kNarrowKeys * kStride]);
  const HeadOfBlock h(s, int(blockIdx.x) / s.tiles);
  const int t0 = int(blockIdx.x) % s.tiles * kNarrowQueries, t = t0 + int(threadIdx.x);
  if (t0 >= h.queries) return;
  const int64_t row = h.first + t;
  Row<D> query, sum;
  query.clear();
  sum.clear();
  // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
  if (t < h.queries) query.load(q + row * s.query_stride + h.column, s.depth, s.vectors);
  query.scale(s.scale * kLog2E);
  const int limit = h.visible(s, t0, kNarrowQueries), seen = h.visible(s, t, 1);
  real largest = -kInfinity, total = 0;
  for (int j0 = 0; j0 < limit; j0 += kNarrowKeys) {
    if (j0 > 0) __syncthreads();
    for (int j = threadIdx.x; j < kNarrowKeys && j0 + j < (limit + 7) / 8 * 8;
         j += kNarrowQueries) {
      const int64_t from = h.key_row(s, j0 + j);
      Row<D> key, value;
      key.clear();
      value.clear();
      if (from >= 0) {
        // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
        key.load(k + from * s.key_stride + h.column, s.depth, s.vectors);
        // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
        value.load(v + from * s.key_stride + h.column, s.depth, s.vectors);
      }
      key.put(keys + j * kStride);
      value.put(values + j * kStride);
    }
    __syncthreads();
    const int count = min(limit - j0, kNarrowKeys);
    for (int g = 0; g < count; g += 8) {
      const int left = seen - (j0 + g);  // key 0 is seen, so that `largest` is finite from there on
      if (left <= 0) break;
      real score[8], highest = largest;
#pragma unroll
      for (int u = 0; u < 8; ++u) {
        score[u] = query.dot(keys + (g + u) * kStride);
        if (u >= left) score[u] = -kInfinity;
        highest = max(highest, score[u]);
      }
      const uint32_t kept = h.dropout.threshold ? h.keep_bits(s, t, j0 + g) : 255u;
      const real factor = exp2(largest - highest);
      largest = highest;
      total *= factor;
      sum.scale(factor);
#pragma unroll
      for (int u = 0; u < 8; ++u) {
        const real p = exp2(score[u] - highest);
        total += p;
        sum.add(kept >> u & 1 ? p : real(0), values + (g + u) * kStride);
      }
    }
  }
  if (t >= h.queries) return;
  sum.scale(h.keys > 0 ? h.dropout.scale / total : real(0));
  // scattered: a head's 8 columns are one sector, whose halves the second-level cache joins
  sum.store(out + row * s.width + h.column, s.depth, s.vectors);
  // scattered: [rows, heads], and a block has one head
  lse[row * s.heads + h.head] = h.keys > 0 ? largest * kLn2 + log(total) : -kInfinity;
}

template <int D>
constexpr size_t wide_forward_bytes() {
  return (kTileQueries + 2 * kTileKeys) * kRowVectors<D> * sizeof(Vector) +
         kTileQueries * kWeightStride * sizeof(real);
}

// A block per tile of queries and D columns of the result.
template <int D, Precision P>
__global__ void __launch_bounds__(kTileThreads, D > 32 ? 2 : 3)
    wide_forward_kernel(const __grid_constant__ AttentionSizes s, const real* q, const real* k,
                        const real* v, real* out, real* lse) {
  DYNAMIC_SHARED(Vector, queries);
  SHARED(int64_t, key_rows, [kTileKeys]);
  Vector* const keys = queries + kTileQueries * kRowVectors<D>;
  Vector* const values = keys + kTileKeys * kRowVectors<D>;
  real* const weights = reinterpret_cast<real*>(values + kTileKeys * kRowVectors<D>);
  const int chunk = int(blockIdx.x) % s.chunks, index = int(blockIdx.x) / s.chunks;
  const HeadOfBlock h(s, index / s.tiles);
  const int t0 = index % s.tiles * kTileQueries;
  if (t0 >= h.queries) return;
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
  const auto query_row = [&](int r) { return t0 + r < h.queries ? h.first + t0 + r : -1; };
  const auto key_row = [&](int r) { return key_rows[r]; };
  TileRows<kTileRows, D> sum;
  real largest[kTileRows], total[kTileRows];
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) largest[r] = -kInfinity, total[r] = 0;
  const int limit = h.visible(s, t0, kTileQueries);
  for (int j0 = 0; j0 < limit; j0 += kTileKeys) {
    __syncthreads();
    if (threadIdx.x < kTileKeys) key_rows[threadIdx.x] = h.key_row(s, j0 + int(threadIdx.x));
    __syncthreads();
    TileScores score = {};
    for (int n = 0; n < s.chunks; ++n) {  // the own chunk is the last one
      const int part = (chunk + 1 + n) % s.chunks;
      if (n > 0) __syncthreads();
      if (s.chunks > 1 || j0 == 0)
        stage_tile<D>(s, q, s.query_stride, h.column, part, kTileQueries, query_row, queries);
      stage_tile<D>(s, k, s.key_stride, h.column, part, kTileKeys, key_row, keys);
      if (part == chunk)
        stage_tile<D>(s, v, s.key_stride, h.column, part, kTileKeys, key_row, values);
      __syncthreads();
      TileProducts<D, P>::add_scores(queries, keys, score, weights);
    }
    const TileKeep keep(s, h, t0, j0);
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      const int seen = h.visible(s, t0 + row + 16 * r, 1) - j0;
      real highest = largest[r];
#pragma unroll
      for (int c = 0; c < kTileColumns; ++c) {
        score[r][c] = column + 8 * c < seen ? score[r][c] * (s.scale * kLog2E) : -kInfinity;
        highest = max(highest, score[r][c]);
      }
      highest = row_max(highest);
      const real factor = exp2(largest[r] - highest);
      largest[r] = highest;
      total[r] *= factor;
#pragma unroll
      for (int n = 0; n < sum.kParts; ++n)
#pragma unroll
        for (int e = 0; e < kVector; ++e) sum.part[r][n].x[e] *= factor;
#pragma unroll
      for (int c = 0; c < kTileColumns; ++c) {
        const real p = exp2(score[r][c] - highest);
        total[r] += p;
        weights[(row + 16 * r) * kWeightStride + column + 8 * c] = keep.kept(r, c) ? p : real(0);
      }
    }
    __syncwarp();  // a row of weights is read by the eight threads that wrote it
    TileProducts<D, P>::add_weighted_keys(
        weights, values, min(limit - j0, kTileKeys), sum,
        [&](int i) { return weights + OwnRows::row(i) * kWeightStride; });
  }
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) {
    const int t = t0 + row + 16 * r;
    const real all = row_sum(total[r]);
    if (t >= h.queries) continue;
    const real factor = h.keys > 0 ? h.dropout.scale / all : real(0);
#pragma unroll
    for (int n = 0; n < sum.kParts; ++n) {
      const int c = chunk * D + (column + 8 * n) * kVector;
#pragma unroll
      for (int e = 0; e < kVector; ++e) sum.part[r][n].x[e] *= factor;
      store_vector(out + (h.first + t) * s.width + h.column + c, s.depth - c, s.vectors,
                   sum.part[r][n]);
    }
    if (column == 0 && chunk == 0)
      lse[(h.first + t) * s.heads + h.head] =
          h.keys > 0 ? largest[r] * kLn2 + log(all) : -kInfinity;
  }
}

}  // namespace

void attention_forward(const Cuda& be, const AttentionShape& s, In q, In k, In v, Out out,
                       Out lse) {
  check_attention_forward(s, q, k, v, out, lse);
  if (out.empty()) return;
  int64_t most = 0;
  for (int64_t i = 0; i < s.queries.sequences(); ++i) most = std::max(most, s.queries.length(i));
  for_attention_launches(
      be, s, {q.data(), k.data(), v.data(), out.data()}, [&](AttentionSizes& sizes, int64_t heads) {
        const bool narrow = sizes.depth <= kNarrowDepth;
        sizes.tiles = int(ceil_div<int64_t>(most, narrow ? kNarrowQueries : kTileQueries));
        const auto queue = [&](auto kernel, int columns, int threads, size_t shared) {
          sizes.chunks = (sizes.depth + columns - 1) / columns;
          note_flops(attention_pairs(s) * (4 * sizes.depth + kFlopsOfWeight));
          launch(be, kernel, unsigned(heads * sizes.tiles * sizes.chunks), unsigned(threads),
                 shared, sizes, q.data(), k.data(), v.data(), out.data(), lse.data());
        };
        const auto queue_narrow = [&](auto kernel) {
          queue(kernel, kNarrowDepth, kNarrowQueries, 0);
        };
        if (sizes.depth <= 4)
          queue_narrow(narrow_forward_kernel<4>);
        else if (sizes.depth <= 6)
          queue_narrow(narrow_forward_kernel<6>);
        else if (sizes.depth <= 8)
          queue_narrow(narrow_forward_kernel<8>);
        else if (sizes.depth <= 12)
          queue_narrow(narrow_forward_kernel<12>);
        else if (narrow)
          queue_narrow(narrow_forward_kernel<16>);
        else
          with_precision(be, [&]<Precision P>(InPrecision<P>) {
            if (sizes.depth <= 32)
              queue(wide_forward_kernel<32, P>, 32, kTileThreads, wide_forward_bytes<32>());
            else
              queue(wide_forward_kernel<64, P>, 64, kTileThreads, wide_forward_bytes<64>());
          });
      });
}

}  // namespace decalign::inline DECALIGN_REAL
