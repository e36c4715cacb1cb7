#include "kernels/check/attention.h"
#include "kernels/cuda/attention_mma.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr real kInfinity = std::numeric_limits<real>::infinity();

struct Arrays {
  const real *q, *k, *v, *out, *lse, *dout;
  real *dq, *dk, *dv;
};

constexpr int kNarrow = 64;                            // queries and keys of a tile of narrow heads
constexpr int kNarrowWeights = kNarrow / kVector + 1;  // vectors from key to key

template <int D>
constexpr size_t narrow_backward_bytes() {
  return sizeof(Vector) * kNarrow * (4 * kRowVectors<D> + 2 * kNarrowWeights);
}

// One thread's query and 32 of a tile's keys: weights [keys, queries] = dropped weights, scores
// [keys, queries] = the scores' gradients without s.scale. `query` is in units of ln 2 and scaled,
// so is `lse`; bit i of `seen`: the query sees key first + i; keys of no bit of `present` are left
// out.
template <int D>
__device__ void narrow_weights(const AttentionSizes& s, const HeadOfBlock& h, int t, int first,
                               uint32_t present, uint32_t seen, const Row<D>& query,
                               const Row<D>& dout, real lse, real delta, const Vector* keys,
                               const Vector* values, real* weights, real* scores, Row<D>& dquery) {
#pragma unroll 1
  for (int g = 0; g < 32; g += 8) {
    if ((present >> g & 255) == 0) continue;
    const uint32_t kept = h.dropout.threshold ? h.keep_bits(s, t, first + g) : 255u;
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      const Vector* const key = keys + (g + u) * kRowVectors<D>;
      const real p = seen >> (g + u) & 1 ? exp2(query.dot(key) - lse) : real(0);
      const real factor = kept >> u & 1 ? h.dropout.scale : real(0);
      const real ds = p * (factor * dout.dot(values + (g + u) * kRowVectors<D>) - delta);
      dquery.add(ds, key);
      weights[(g + u) * kNarrowWeights * kVector] = p * factor;
      scores[(g + u) * kNarrowWeights * kVector] = ds;
    }
  }
}

// A block per head: for every tile the weights once, a thread per query and half of the keys; then,
// from shared memory, dv by one half of the threads and dk by the other, a thread per key.
template <int D>
__global__ void __launch_bounds__(2 * kNarrow, D > 12 ? 3 : 4)
    narrow_backward_kernel(const __grid_constant__ AttentionSizes s,
                           const __grid_constant__ Arrays x) {
  constexpr int kStride = kRowVectors<D>;
  DYNAMIC_SHARED(Vector, queries);
  SHARED(uint32_t, present, [2]);
  Vector* const douts = queries + kNarrow * kStride;
  Vector* const keys = douts + kNarrow * kStride;
  Vector* const values = keys + kNarrow * kStride;
  Vector* const weights = values + kNarrow * kStride;
  Vector* const scores = weights + kNarrow * kNarrowWeights;
  const HeadOfBlock h(s, int(blockIdx.x));
  const int i = threadIdx.x % kNarrow, half = threadIdx.x / kNarrow;
  for (int t0 = 0; t0 < h.queries; t0 += kNarrow) {
    const int t = t0 + i, count = min(h.queries - t0, kNarrow);
    const bool active = i < count;
    const int64_t row = h.first + t;
    Row<D> query, dout, dquery;
    query.clear();
    dout.clear();
    dquery.clear();
    real lse = kInfinity, delta = 0;  // weights of queries beyond the end are 0
    if (active) {
      Row<D> out;
      const int64_t at = row * s.width + h.column;
      // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
      query.load(x.q + row * s.query_stride + h.column, s.depth, s.vectors);
      // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
      dout.load(x.dout + at, s.depth, s.vectors);
      // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
      out.load(x.out + at, s.depth, s.vectors);
      delta = dout.dot(out.part);
      // scattered: [rows, heads], and a block has one head
      lse = x.lse[row * s.heads + h.head] * kLog2E;
    }
    if (half)
      dout.put(douts + i * kStride);
    else
      query.put(queries + i * kStride);
    query.scale(s.scale * kLog2E);
    const int limit = h.visible(s, t0, count);
    for (int j0 = 0; j0 < limit; j0 += kNarrow) {
      const int64_t key_row = h.key_row(s, j0 + i);
      Row<D> key;
      key.clear();
      // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
      if (key_row >= 0)
        key.load((half ? x.v : x.k) + key_row * s.key_stride + h.column, s.depth, s.vectors);
      key.put((half ? values : keys) + i * kStride);
      const uint32_t votes = __ballot_sync(0xffffffffu, key_row >= 0);
      if (threadIdx.x % 32 == 0 && half == 0) present[i / 32] = votes;
      __syncthreads();
      const int left = s.causal ? t + 1 - (j0 + 32 * half) : 32;
      const uint32_t seen = present[half] & (left >= 32 ? ~0u : left <= 0 ? 0u : (1u << left) - 1u);
      narrow_weights<D>(s, h, t, j0 + 32 * half, present[half], seen, query, dout, lse, delta,
                        keys + 32 * half * kStride, values + 32 * half * kStride,
                        reinterpret_cast<real*>(weights + 32 * half * kNarrowWeights) + i,
                        reinterpret_cast<real*>(scores + 32 * half * kNarrowWeights) + i, dquery);
      __syncthreads();
      real* const gradient = half ? x.dk : x.dv;
      if (gradient && key_row >= 0) {
        const Vector* const weight = (half ? scores : weights) + i * kNarrowWeights;
        const Vector* const from = half ? queries : douts;
        Row<D> sum;
        sum.clear();
#pragma unroll 2
        for (int n = 0; n < count; n += kVector) {
          const Vector w = weight[n / kVector];
#pragma unroll
          for (int e = 0; e < kVector; ++e) sum.add(w.x[e], from + (n + e) * kStride);
        }
        // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
        sum.add_to(gradient + key_row * s.key_stride + h.column, s.depth, s.vectors,
                   half ? s.scale : real(1));
      }
      __syncthreads();
    }
    if (x.dq) {  // the halves' parts together
      if (half) dquery.put(keys + i * kStride);
      __syncthreads();
      if (!half && active) {
        dquery.add(1, keys + i * kStride);
        // scattered: a head's 8 columns are one sector, whose other half is the next instruction's
        dquery.add_to(x.dq + row * s.query_stride + h.column, s.depth, s.vectors, s.scale);
      }
      __syncthreads();
    }
  }
}

template <int D>
constexpr size_t wide_backward_bytes() {
  return 2 * (kTileQueries + kTileKeys) * kRowVectors<D> * sizeof(Vector) +
         2 * kTileQueries * kWeightStride * sizeof(real);
}

// weights and scores [queries, keys] of a tile from scores q . k and dout . v
__device__ void wide_weights(const AttentionSizes& s, const HeadOfBlock& h, int t0, int j0,
                             const int64_t* key_rows, const real (&lse)[kTileRows],
                             const real (&delta)[kTileRows], const TileScores& score,
                             const TileScores& dweight, real* weights, real* scores) {
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
  const TileKeep keep(s, h, t0, j0);
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) {
    const int seen = h.visible(s, t0 + row + 16 * r, 1) - j0;
#pragma unroll
    for (int c = 0; c < kTileColumns; ++c) {
      const int j = column + 8 * c;
      const real p =
          j < seen && key_rows[j] >= 0 ? exp2(score[r][c] * (s.scale * kLog2E) - lse[r]) : real(0);
      const real factor = keep.kept(r, c) ? h.dropout.scale : real(0);
      weights[(row + 16 * r) * kWeightStride + j] = p * factor;
      scores[(row + 16 * r) * kWeightStride + j] = p * (factor * dweight[r][c] - delta[r]);
    }
  }
}

// gradient += factor weights^T a in the tile's key rows; `slot`: see TileProducts
template <int D, Precision P, class Slot>
__device__ void add_to_keys(const AttentionSizes& s, const HeadOfBlock& h, int chunk, int queries,
                            const int64_t* key_rows, const real* weights, const Vector* a,
                            real factor, real* gradient, Slot slot) {
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
  TileRows<kVector, D> sum;
  TileProducts<D, P>::add_weighted_queries(weights, a, queries, sum, slot);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const int64_t to = key_rows[row * kVector + i];
    if (to < 0) continue;
#pragma unroll
    for (int n = 0; n < sum.kParts; ++n) {
      const int c = chunk * D + (column + 8 * n) * kVector;
      add_vector(gradient + to * s.key_stride + h.column + c, s.depth - c, s.vectors, factor,
                 sum.part[i][n]);
    }
  }
}

// A block per head and D columns of the gradients.
template <int D, Precision P>
__global__ void __launch_bounds__(kTileThreads)
    wide_backward_kernel(const __grid_constant__ AttentionSizes s,
                         const __grid_constant__ Arrays x) {
  DYNAMIC_SHARED(Vector, queries);
  SHARED(int64_t, key_rows, [kTileKeys]);
  Vector* const douts = queries + kTileQueries * kRowVectors<D>;
  Vector* const keys = douts + kTileQueries * kRowVectors<D>;
  Vector* const values = keys + kTileKeys * kRowVectors<D>;
  real* const weights = reinterpret_cast<real*>(values + kTileKeys * kRowVectors<D>);
  real* const scores = weights + kTileQueries * kWeightStride;
  const int chunk = int(blockIdx.x) % s.chunks;
  const HeadOfBlock h(s, int(blockIdx.x) / s.chunks);
  const int row = threadIdx.x / 8, column = threadIdx.x % 8;
  const auto key_row = [&](int r) { return key_rows[r]; };
  for (int t0 = 0; t0 < h.queries; t0 += kTileQueries) {
    const auto query_row = [&](int r) { return t0 + r < h.queries ? h.first + t0 + r : -1; };
    real lse[kTileRows], delta[kTileRows];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t from = query_row(row + 16 * r), at = from * s.width + h.column;
      real sum = 0;
      for (int c = column; from >= 0 && c < s.depth; c += 8) sum += x.dout[at + c] * x.out[at + c];
      delta[r] = row_sum(sum);
      lse[r] = from >= 0 ? x.lse[from * s.heads + h.head] * kLog2E : kInfinity;
    }
    TileRows<kTileRows, D> dquery;
    bool staged = false;  // queries and douts
    const int count = min(h.queries - t0, kTileQueries), limit = h.visible(s, t0, count);
    for (int j0 = 0; j0 < limit; j0 += kTileKeys) {
      __syncthreads();  // the tile before has been read
      int64_t own = -1;
      if (threadIdx.x < kTileKeys)
        key_rows[threadIdx.x] = own = h.key_row(s, j0 + int(threadIdx.x));
      if (!__syncthreads_or(own >= 0)) continue;
      TileScores score = {}, dweight = {};
      for (int n = 0; n < s.chunks; ++n) {  // the own chunk is the last one
        const int part = (chunk + 1 + n) % s.chunks;
        if (n > 0) __syncthreads();
        if (s.chunks > 1 || !staged) {
          stage_tile<D>(s, x.q, s.query_stride, h.column, part, kTileQueries, query_row, queries);
          stage_tile<D>(s, x.dout, s.width, h.column, part, kTileQueries, query_row, douts);
        }
        stage_tile<D>(s, x.k, s.key_stride, h.column, part, kTileKeys, key_row, keys);
        stage_tile<D>(s, x.v, s.key_stride, h.column, part, kTileKeys, key_row, values);
        __syncthreads();
        TileProducts<D, P>::add_scores(queries, keys, score, weights);
        TileProducts<D, P>::add_scores(douts, values, dweight, scores);
      }
      staged = true;
      wide_weights(s, h, t0, j0, key_rows, lse, delta, score, dweight, weights, scores);
      __syncthreads();
      const auto slot = [&](int i) {  // the values have been read
        return reinterpret_cast<real*>(values + NextRows::row(i) * kRowVectors<D>);
      };
      if (x.dv) add_to_keys<D, P>(s, h, chunk, count, key_rows, weights, douts, 1, x.dv, slot);
      if (x.dk)
        add_to_keys<D, P>(s, h, chunk, count, key_rows, scores, queries, s.scale, x.dk, slot);
      if (x.dq)
        TileProducts<D, P>::add_weighted_keys(scores, keys, min(limit - j0, kTileKeys), dquery,
                                              slot);
    }
#pragma unroll
    for (int r = 0; r < kTileRows && x.dq; ++r) {
      const int64_t to = query_row(row + 16 * r);
      if (to < 0) continue;
#pragma unroll
      for (int n = 0; n < dquery.kParts; ++n) {
        const int c = chunk * D + (column + 8 * n) * kVector;
        add_vector(x.dq + to * s.query_stride + h.column + c, s.depth - c, s.vectors, s.scale,
                   dquery.part[r][n]);
      }
    }
  }
}

}  // namespace

void attention_backward(const Cuda& be, const AttentionShape& s, In q, In k, In v, In out, In lse,
                        In dout, InOut dq, InOut dk, InOut dv) {
  check_attention_backward(s, q, k, v, out, lse, dout, dq, dk, dv);
  if (out.empty() || (dq.empty() && dk.empty() && dv.empty())) return;
  const Arrays x{q.data(),    k.data(),    v.data(),    out.data(), lse.data(),
                 dout.data(), pointer(dq), pointer(dk), pointer(dv)};
  std::vector<int> rounds;
  const int launches = dk.empty() && dv.empty() ? 1 : attention_rounds(s, rounds);
  const auto queue = [&](AttentionSizes& sizes, int64_t heads, auto kernel, int columns,
                         int threads, size_t shared) {
    sizes.chunks = (sizes.depth + columns - 1) / columns;
    sizes.rounds = device_list(be, std::span<const int>(rounds));
    for (int round = 0; round < launches; ++round) {
      sizes.round = round;
      note_flops(attention_pairs(s) * (10 * sizes.depth + kFlopsOfWeight) / launches);
      launch(be, kernel, unsigned(heads * sizes.chunks), unsigned(threads), shared, sizes, x);
    }
  };
  for_attention_launches(be, s, {x.q, x.k, x.v, x.out, x.dout, x.dq, x.dk, x.dv},
                         [&](AttentionSizes& sizes, int64_t heads) {
                           const auto narrow = [&](auto kernel, size_t shared) {
                             queue(sizes, heads, kernel, kNarrowDepth, 2 * kNarrow, shared);
                           };
                           if (sizes.depth <= 4)
                             narrow(narrow_backward_kernel<4>, narrow_backward_bytes<4>());
                           else if (sizes.depth <= 6)
                             narrow(narrow_backward_kernel<6>, narrow_backward_bytes<6>());
                           else if (sizes.depth <= 8)
                             narrow(narrow_backward_kernel<8>, narrow_backward_bytes<8>());
                           else if (sizes.depth <= 12)
                             narrow(narrow_backward_kernel<12>, narrow_backward_bytes<12>());
                           else if (sizes.depth <= 16)
                             narrow(narrow_backward_kernel<16>, narrow_backward_bytes<16>());
                           else
                             with_precision(be, [&]<Precision P>(InPrecision<P>) {
                               if (sizes.depth <= 32)
                                 queue(sizes, heads, wide_backward_kernel<32, P>, 32, kTileThreads,
                                       wide_backward_bytes<32>());
                               else
                                 queue(sizes, heads, wide_backward_kernel<64, P>, 64, kTileThreads,
                                       wide_backward_bytes<64>());
                             });
                         });
}

}  // namespace decalign::inline DECALIGN_REAL
