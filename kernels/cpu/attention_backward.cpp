// Backward attention: the weights are recomputed tile by tile from the saved denominators.
#include "kernels/attention.h"
#include "kernels/cpu/attention_narrow.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kMaxRanges = 4096;  // more ranges than this count as sharing rows

// No key row is read twice, so that sequences are independent.
bool keys_separate(const AttentionShape& s) {
  KeyRange sorted[kMaxRanges];
  int64_t n = 0;
  for (const KeyRange& r : s.ranges) {
    if (r.length == 0) continue;
    if (n == kMaxRanges) return false;
    sorted[n++] = r;
  }
  std::sort(sorted, sorted + n, [](KeyRange a, KeyRange b) { return a.row < b.row; });
  for (int64_t i = 1; i < n; ++i)
    if (sorted[i].row < sorted[i - 1].row + sorted[i - 1].length) return false;
  return true;
}

// One query's part of a tile: row holds scores and becomes the dropped weights, drow holds dout . v
// and becomes the scores' gradient times h.scale.
void score_gradients(const AttentionShape& s, const AttentionHead& h, int64_t t, int64_t j0,
                     int64_t count, real lse, real d, real* row, real* drow) {
  const int64_t limit = visible(s, t, j0, count);
  uint8_t bits[kTileKeys / 8 + 16];
  const bool drop = h.keep.threshold > 0;
  if (drop) h.keep_run(s, t, j0, limit, bits);
  for (int64_t j = 0; j < limit; j += kLanes) {
    vreal score = load(row + j);
    if (limit - j < kLanes)
      score = load_partial(row + j, limit - j, -std::numeric_limits<real>::infinity());
    const vreal p = vexp(score - lse);
    vreal dropped = p, dp = load(drow + j);
    if (drop) {
      const uint32_t word = lane_bits(bits, j);
      dropped = keep_lanes(word, p * h.keep.scale);
      dp = keep_lanes(word, dp * h.keep.scale);
    }
    store(row + j, dropped);
    store(drow + j, p * (dp - d) * h.scale);
  }
  for (int64_t j = round_up(limit, kLanes); j < count; j += kLanes) {
    store(row + j, vreal{});
    store(drow + j, vreal{});
  }
}

struct Arrays {
  In q, k, v, out, lse, dout;
  InOut dq, dk, dv;
};

// Adds weights^T a (weights [n, kTileKeys], a [n, depth]) to keys [j0, j0 + count) of `gradient`.
void add_to_keys(const AttentionShape& s, const AttentionHead& h, int64_t n, const real* a,
                 int64_t lda, const real* weights, int64_t j0, int64_t count, InOut gradient) {
  if (gradient.empty()) return;
  if (h.depth >= kLanes) {  // the heads' columns fill the lanes: straight into the rows
    for_key_runs(s, h.sequence, j0, count, [&](int64_t row, int64_t first, int64_t length) {
      add_outer(n, length, h.depth, weights + first, kTileKeys, a, lda,
                gradient.data() + row * s.key_stride + h.column, s.key_stride);
    });
    return;
  }
  alignas(64) real sum[kTileDepth * kTileKeys];
  for (int64_t c0 = 0; c0 < h.depth; c0 += kTileDepth) {
    const int64_t depth = std::min(h.depth - c0, kTileDepth);
    std::fill_n(sum, depth * kTileKeys, real(0));
    add_outer(n, depth, count, a + c0, lda, weights, kTileKeys, sum, kTileKeys);
    for_key_runs(s, h.sequence, j0, count, [&](int64_t row, int64_t first, int64_t length) {
      for (int64_t i = 0; i < length; ++i) {
        real* to = gradient.data() + (row + i) * s.key_stride + h.column + c0;
        for (int64_t c = 0; c < depth; c += kLanes) {
          const int64_t lanes = std::min(depth - c, kLanes);
          const vreal part = load_strided(sum + c * kTileKeys + first + i, kTileKeys, lanes);
          store_partial(to + c, load_partial(to + c, lanes) + part, lanes);
        }
      }
    });
  }
}

// Queries [t0, t0 + n) and keys [j0, j0 + count) of one head.
void run_tile(const AttentionShape& s, const AttentionHead& h, int64_t t0, int64_t n, int64_t j0,
              int64_t count, const real* d, const Arrays& x) {
  alignas(64) real weights[kTileQueries * kTileKeys], scores[kTileQueries * kTileKeys];
  const int64_t query = h.query_offset + t0 * h.query_stride, out = h.out_offset + t0 * s.width;
  key_products(s, h, n, x.q.data() + query, h.query_stride, x.k.data(), j0, count, h.scale,
               weights);
  key_products(s, h, n, x.dout.data() + out, s.width, x.v.data(), j0, count, 1, scores);
  for (int64_t t = 0; t < n; ++t)
    score_gradients(s, h, t0 + t, j0, count,
                    x.lse[size_t((h.first_query + t0 + t) * s.heads + h.head)], d[t],
                    weights + t * kTileKeys, scores + t * kTileKeys);
  add_to_keys(s, h, n, x.dout.data() + out, s.width, weights, j0, count, x.dv);
  add_to_keys(s, h, n, x.q.data() + query, h.query_stride, scores, j0, count, x.dk);
  if (x.dq.empty()) return;
  alignas(64) real packed[packed_size(kTileKeys, kTileDepth)];
  for (int64_t c0 = 0; c0 < h.depth; c0 += kTileDepth) {
    const int64_t depth = std::min(h.depth - c0, kTileDepth);
    pack_keys(s, h, j0, count, c0, depth, x.k.data(), packed);
    multiply(n, count, depth, scores, kTileKeys, packed, nullptr, x.dq.data() + query + c0,
             h.query_stride, Store::add);
  }
}

void run_head(const AttentionShape& s, int64_t sequence, int64_t head, const Arrays& x) {
  const AttentionHead h(s, sequence, head);
  for (int64_t t0 = 0; t0 < h.queries; t0 += kTileQueries) {
    const int64_t n = std::min(h.queries - t0, kTileQueries);
    real d[kTileQueries];  // dout . out
    for (int64_t t = 0; t < n; ++t) {
      const int64_t at = h.out_offset + (t0 + t) * s.width;
      vreal sum{};
      for (int64_t c = 0; c < h.depth; c += kLanes) {
        const int64_t lanes = std::min(h.depth - c, kLanes);
        sum += load_partial(x.dout.data() + at + c, lanes) *
               load_partial(x.out.data() + at + c, lanes);
      }
      d[t] = sum_lanes(sum);
    }
    if (narrow_attention(s, h)) {
      narrow_attention_backward(s, h, x.q, x.k, x.v, x.lse, x.dout, d, t0, n, x.dq, x.dk, x.dv);
      continue;
    }
    const int64_t keys = s.causal ? std::min(h.keys, t0 + n) : h.keys;
    for (int64_t j0 = 0; j0 < keys; j0 += kTileKeys)
      run_tile(s, h, t0, n, j0, std::min(keys - j0, kTileKeys), d, x);
  }
}

}  // namespace

void attention_backward(const Cpu& be, const AttentionShape& s, In q, In k, In v, In out, In lse,
                        In dout, InOut dq, InOut dk, InOut dv) {
  check_attention_backward(s, q, k, v, out, lse, dout, dq, dk, dv);
  const Arrays x{q, k, v, out, lse, dout, dq, dk, dv};
  if (keys_separate(s)) {
    for_heads(be, s, [&](int64_t sequence, int64_t head) { run_head(s, sequence, head, x); });
  } else {  // several sequences add to the same rows: one after the other
    parallel_for(be, s.heads, [&](int64_t head) {
      for (int64_t sequence = 0; sequence < s.queries.sequences(); ++sequence)
        run_head(s, sequence, head, x);
    });
  }
}

}  // namespace decalign::inline DECALIGN_REAL
