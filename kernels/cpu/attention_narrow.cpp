#include "kernels/cpu/attention_narrow.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kBlockKeys = 128;  // scores of a block stay in the first-level cache
constexpr int64_t kTogether = 16;    // keys whose part of a sum is summed up first
constexpr real kInfinity = std::numeric_limits<real>::infinity();

// A head's rows of keys or values: position j of the concatenated ranges -> its first number.
struct KeyRows {
  const int64_t* offset;
  const real* operator()(const real* base, int64_t j) const { return base + offset[j]; }
};

// offset[i] of keys [j0, j0 + count), in elements of k and v.
void find_rows(const AttentionShape& s, const AttentionHead& h, int64_t j0, int64_t count,
               int64_t* offset) {
  for_key_runs(s, h.sequence, j0, count, [&](int64_t row, int64_t first, int64_t length) {
    for (int64_t i = 0; i < length; ++i) offset[first + i] = (row + i) * s.key_stride + h.column;
  });
}

// Column c of `count` queries from t on, one query a lane.
template <int Depth, int V>
void load_queries(const real* rows, int64_t stride, int64_t count, real scale,
                  vreal (&to)[Depth][V]) {
  for (int c = 0; c < Depth; ++c)
    for (int v = 0; v < V; ++v)
      to[c][v] = scale * load_strided(rows + v * kLanes * stride + c, stride,
                                      std::clamp<int64_t>(count - v * kLanes, 0, kLanes));
}

// The decisions of V * kLanes queries from t on and eight keys from j on, j a multiple of 8: byte
// i, bit b is query t + i, key j + b.
template <int V>
struct KeepBytes {
  alignas(64) uint8_t bytes[64];
  void draw(const AttentionShape& s, const AttentionHead& h, int64_t t, int64_t j) {
    const int64_t blocks_per_query = (h.keys + 7) / 8;
    const int64_t first = ((h.first_query + t) * s.heads + h.head) * blocks_per_query + j / 8;
    keep_columns(h.keep, uint64_t(first), uint64_t(s.heads * blocks_per_query), V * kLanes, bytes);
  }
  vreal operator()(int v, int64_t j, vreal x) const {
    return keep_lanes(column_bits(bytes + v * kLanes, int(j % 8)), x);
  }
};

// V * kLanes queries from t on, the first `n` of them real.
template <int Depth, int V>
void forward_tile(const AttentionShape& s, const AttentionHead& h, int64_t t, int64_t n, In q, In k,
                  In v, Out out, Out lse) {
  alignas(64) real scores[kBlockKeys][V][kLanes];
  int64_t offset[kBlockKeys];
  vreal query[Depth][V], sum[Depth][V] = {}, largest[V], total[V] = {};
  load_queries(q.data() + h.query_offset + t * h.query_stride, h.query_stride, n, h.scale, query);
  for (vreal& x : largest) x = broadcast(-kInfinity);
  const bool drop = h.keep.threshold > 0;
  KeepBytes<V> keep;
  for (int64_t j0 = 0; j0 < h.keys; j0 += kBlockKeys) {
    const int64_t count = std::min(h.keys - j0, kBlockKeys);
    find_rows(s, h, j0, count, offset);
    const KeyRows row{offset};
    vreal before[V];
    std::copy_n(largest, V, before);
    for (int64_t j = 0; j < count; ++j) {
      const real* key = row(k.data(), j);
#pragma GCC unroll 2
      for (int u = 0; u < V; ++u) {
        vreal score = query[0][u] * key[0];
#pragma GCC unroll 16
        for (int c = 1; c < Depth; ++c) score += query[c][u] * key[c];
        largest[u] = vmax(score, largest[u]);
        store(scores[j][u], score);
      }
    }
    if (j0 > 0) {
      for (int u = 0; u < V; ++u) {
        const vreal factor = vexp(before[u] - largest[u]);
        total[u] *= factor;
        for (int c = 0; c < Depth; ++c) sum[c][u] *= factor;
      }
    }
    for (int64_t first = 0; first < count; first += kTogether) {
      vreal part[Depth][V] = {}, part_total[V] = {};
      for (int64_t j = first; j < std::min(count, first + kTogether); ++j) {
        if (drop && j % 8 == 0) keep.draw(s, h, t, j0 + j);
        const real* value = row(v.data(), j);
#pragma GCC unroll 2
        for (int u = 0; u < V; ++u) {
          vreal p = vexp(load(scores[j][u]) - largest[u]);
          part_total[u] += p;
          if (drop) p = keep(u, j, p);
#pragma GCC unroll 16
          for (int c = 0; c < Depth; ++c) part[c][u] += p * value[c];
        }
      }
      for (int u = 0; u < V; ++u) {
        total[u] += part_total[u];
        for (int c = 0; c < Depth; ++c) sum[c][u] += part[c][u];
      }
    }
  }
  alignas(64) real lanes[Depth + 2][V * kLanes];
  for (int u = 0; u < V; ++u) {
    const vreal scale = h.keep.scale / total[u];
    for (int c = 0; c < Depth; ++c)
      store(lanes[c] + u * kLanes, h.keys > 0 ? sum[c][u] * scale : vreal{});
    store(lanes[Depth] + u * kLanes, largest[u]);
    store(lanes[Depth + 1] + u * kLanes, total[u]);
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < Depth; ++c) out[size_t(h.out_offset + (t + i) * s.width + c)] = lanes[c][i];
    lse[size_t((h.first_query + t + i) * s.heads + h.head)] =
        h.keys > 0 ? lanes[Depth][i] + std::log(lanes[Depth + 1][i]) : -kInfinity;
  }
}

template <int Depth>
void forward(const AttentionShape& s, const AttentionHead& h, In q, In k, In v, Out out, Out lse) {
  constexpr int kPair = Depth <= 8 ? 2 : 1;  // as many queries as the registers hold
  int64_t t = 0;
  for (; h.queries - t > kLanes && kPair == 2; t += 2 * kLanes)
    forward_tile<Depth, kPair>(s, h, t, std::min(h.queries - t, 2 * kLanes), q, k, v, out, lse);
  for (; t < h.queries; t += kLanes)
    forward_tile<Depth, 1>(s, h, t, std::min(h.queries - t, kLanes), q, k, v, out, lse);
}

// Per key: the dropped weights and the scores' gradients of a tile's queries.
struct Weights {
  alignas(64) real p[kBlockKeys][kTileQueries], ds[kBlockKeys][kTileQueries];
};

// Fills the weights of kLanes queries from t on (lane 0 is column `lane` of the tile) and adds to
// their dq.
template <int Depth>
void backward_queries(const AttentionShape& s, const AttentionHead& h, int64_t t, int64_t lane,
                      int64_t n, In q, In k, In v, In lse, In dout, const real* d, int64_t j0,
                      int64_t count, const int64_t* offset, InOut dq, Weights& w) {
  vreal query[Depth][1], gradient[Depth][1], dquery[Depth] = {};
  load_queries(q.data() + h.query_offset + t * h.query_stride, h.query_stride, n, h.scale, query);
  load_queries(dout.data() + h.out_offset + t * s.width, s.width, n, h.keep.scale, gradient);
  alignas(64) real lanes[Depth][kLanes];
  for (int i = 0; i < int(kLanes); ++i)
    lanes[0][i] = i < n ? lse[size_t((h.first_query + t + i) * s.heads + h.head)] : kInfinity;
  const vreal log_sum = load(lanes[0]), dot = load_partial(d, n);
  const bool drop = h.keep.threshold > 0;
  const KeyRows row{offset};
  KeepBytes<1> keep;
  for (int64_t j = 0; j < count; ++j) {
    if (drop && j % 8 == 0) keep.draw(s, h, t, j0 + j);
    const real *key = row(k.data(), j), *value = row(v.data(), j);
    vreal score = query[0][0] * key[0], dp = gradient[0][0] * value[0];
#pragma GCC unroll 16
    for (int c = 1; c < Depth; ++c) {
      score += query[c][0] * key[c];
      dp += gradient[c][0] * value[c];
    }
    const vreal p = vexp(score - log_sum);
    vreal dropped = p * h.keep.scale;
    if (drop) {
      dropped = keep(0, j, dropped);
      dp = keep(0, j, dp);
    }
    const vreal ds = p * (dp - dot) * h.scale;
    store(w.p[j] + lane, dropped);
    store(w.ds[j] + lane, ds);
#pragma GCC unroll 16
    for (int c = 0; c < Depth; ++c) dquery[c] += ds * key[c];
  }
  if (dq.empty()) return;
  for (int c = 0; c < Depth; ++c) store(lanes[c], dquery[c]);
  for (int64_t i = 0; i < n; ++i) {
    real* to = dq.data() + h.query_offset + (t + i) * h.query_stride;
    for (int c = 0; c < Depth; ++c) to[c] += lanes[c][i];
  }
}

// gradient[key j] += sum over n queries of weights[j][t] * rows[t], for all keys of the block.
template <int Depth>
void add_to_keys(int64_t n, int64_t count, const real (*weights)[kTileQueries], const real* rows,
                 int64_t stride, const int64_t* offset, InOut gradient) {
  typedef real vdepth
      __attribute__((vector_size(Depth * sizeof(real)), aligned(sizeof(real)), may_alias));
  constexpr int kTogether = 8;
  const auto block = [&]<int J>(std::integral_constant<int, J>, int64_t j) {
    vdepth sum[J];
#pragma GCC unroll 8
    for (int i = 0; i < J; ++i) sum[i] = vdepth{};
    for (int64_t t = 0; t < n; ++t) {
      const vdepth row = *reinterpret_cast<const vdepth*>(rows + t * stride);
#pragma GCC unroll 8
      for (int i = 0; i < J; ++i) sum[i] += weights[j + i][t] * row;
    }
#pragma GCC unroll 8
    for (int i = 0; i < J; ++i)
      *reinterpret_cast<vdepth*>(gradient.data() + offset[j + i]) += sum[i];
  };
  int64_t j = 0;
  for (; j + kTogether <= count; j += kTogether) block(std::integral_constant<int, kTogether>{}, j);
  for (; j < count; ++j) block(std::integral_constant<int, 1>{}, j);
}

template <int Depth>
void backward(const AttentionShape& s, const AttentionHead& h, In q, In k, In v, In lse, In dout,
              const real* d, int64_t first, int64_t n, InOut dq, InOut dk, InOut dv) {
  Weights w;
  int64_t offset[kBlockKeys];
  for (int64_t j0 = 0; j0 < h.keys; j0 += kBlockKeys) {
    const int64_t count = std::min(h.keys - j0, kBlockKeys);
    find_rows(s, h, j0, count, offset);
    for (int64_t i = 0; i < n; i += kLanes)
      backward_queries<Depth>(s, h, first + i, i, std::min(n - i, kLanes), q, k, v, lse, dout,
                              d + i, j0, count, offset, dq, w);
    if (!dv.empty())
      add_to_keys<Depth>(n, count, w.p, dout.data() + h.out_offset + first * s.width, s.width,
                         offset, dv);
    if (!dk.empty())
      add_to_keys<Depth>(n, count, w.ds, q.data() + h.query_offset + first * h.query_stride,
                         h.query_stride, offset, dk);
  }
}

}  // namespace

void narrow_attention_forward(const AttentionShape& s, const AttentionHead& h, In q, In k, In v,
                              Out out, Out lse) {
  switch (h.depth) {
    case 4:
      return forward<4>(s, h, q, k, v, out, lse);
    case 8:
      return forward<8>(s, h, q, k, v, out, lse);
    case 16:
      return forward<16>(s, h, q, k, v, out, lse);
  }
}

void narrow_attention_backward(const AttentionShape& s, const AttentionHead& h, In q, In k, In v,
                               In lse, In dout, const real* d, int64_t first, int64_t n, InOut dq,
                               InOut dk, InOut dv) {
  switch (h.depth) {
    case 4:
      return backward<4>(s, h, q, k, v, lse, dout, d, first, n, dq, dk, dv);
    case 8:
      return backward<8>(s, h, q, k, v, lse, dout, d, first, n, dq, dk, dv);
    case 16:
      return backward<16>(s, h, q, k, v, lse, dout, d, first, n, dq, dk, dv);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
