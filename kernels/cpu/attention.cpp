// Forward attention: online softmax over tiles of 64 queries x 128 keys (flash attention's
// recurrence; a sequence of up to 128 keys is one tile).
#include "kernels/attention.h"

#include "kernels/cpu/attention_narrow.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr real kMinusInfinity = -std::numeric_limits<real>::infinity();

struct Softmax {
  real largest[kTileQueries], sum[kTileQueries], factor[kTileQueries];
};

// Scores of queries t .. t + R and keys [j0, j0 + count) become dropped exponentials, R queries at
// a time to overlap their reductions; all of them see the same keys. factor[r] is what earlier
// results have to be multiplied with.
template <int R>
void exponentials(const AttentionShape& s, const AttentionHead& h, int64_t t, int64_t j0,
                  int64_t count, real* rows, real* largest, real* sum, real* factor) {
  const int64_t limit = visible(s, t, j0, count), whole = limit / kLanes * kLanes;
  vreal highest[R], total[R] = {};
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) highest[r] = broadcast(largest[r]);
  for (int64_t j = 0; j < whole; j += kLanes)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) highest[r] = vmax(load(rows + r * kTileKeys + j), highest[r]);
  uint8_t bits[R][kTileKeys / 8 + 16];
  const bool drop = h.keep.threshold > 0;
  real before[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    if (whole < limit)
      highest[r] = vmax(load_partial(rows + r * kTileKeys + whole, limit - whole, kMinusInfinity),
                        highest[r]);
    before[r] = largest[r];
    largest[r] = max_lanes(highest[r]);
    if (drop) h.keep_run(s, t + r, j0, limit, bits[r]);
  }
  const auto step = [&](int r, int64_t j, vreal score) {
    vreal p = vexp(score - largest[r]);
    total[r] += p;
    if (drop) p = keep_lanes(lane_bits(bits[r], j), p * h.keep.scale);
    store(rows + r * kTileKeys + j, p);
  };
  for (int64_t j = 0; j < whole; j += kLanes)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) step(r, j, load(rows + r * kTileKeys + j));
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    if (whole < limit)
      step(r, whole, load_partial(rows + r * kTileKeys + whole, limit - whole, kMinusInfinity));
    for (int64_t j = round_up(limit, kLanes); j < count; j += kLanes)
      store(rows + r * kTileKeys + j, vreal{});
    factor[r] = j0 == 0 ? real(0) : std::exp(before[r] - largest[r]);
    sum[r] = sum[r] * factor[r] + sum_lanes(total[r]);
  }
}

// Queries [t0, t0 + n) of one head.
void run_tile(const AttentionShape& s, const AttentionHead& h, int64_t t0, int64_t n, In q, In k,
              In v, Out out, Out lse) {
  alignas(64) real scores[kTileQueries * kTileKeys];
  alignas(64) real packed[packed_size(kTileKeys, kTileDepth)];
  Softmax state;
  std::fill_n(state.largest, n, kMinusInfinity);
  std::fill_n(state.sum, n, real(0));
  real* o = out.data() + h.out_offset + t0 * s.width;
  const int64_t keys = s.causal ? std::min(h.keys, t0 + n) : h.keys;
  for (int64_t j0 = 0; j0 < keys; j0 += kTileKeys) {
    const int64_t count = std::min(keys - j0, kTileKeys);
    key_products(s, h, n, q.data() + h.query_offset + t0 * h.query_stride, h.query_stride, k.data(),
                 j0, count, h.scale, scores);
    const auto softmax = [&](auto rows, int64_t t) {
      exponentials<rows()>(s, h, t0 + t, j0, count, scores + t * kTileKeys, state.largest + t,
                           state.sum + t, state.factor + t);
    };
    int64_t t = 0;
    for (; !s.causal && t + 4 <= n; t += 4) softmax(std::integral_constant<int, 4>{}, t);
    for (; t < n; ++t) softmax(std::integral_constant<int, 1>{}, t);
    for (t = 0; j0 > 0 && t < n; ++t)
      for (int64_t c = 0; c < h.depth; ++c) o[t * s.width + c] *= state.factor[t];
    for (int64_t c0 = 0; c0 < h.depth; c0 += kTileDepth) {
      const int64_t depth = std::min(h.depth - c0, kTileDepth);
      pack_keys(s, h, j0, count, c0, depth, v.data(), packed);
      multiply(n, count, depth, scores, kTileKeys, packed, nullptr, o + c0, s.width,
               j0 == 0 ? Store::overwrite : Store::add);
    }
  }
  for (int64_t t = 0; t < n; ++t) {
    const real inverse = keys > 0 ? 1 / state.sum[t] : real(0);
    for (int64_t c = 0; c < h.depth; ++c)
      o[t * s.width + c] = keys > 0 ? o[t * s.width + c] * inverse : real(0);
    lse[size_t((h.first_query + t0 + t) * s.heads + h.head)] =
        keys > 0 ? state.largest[t] + std::log(state.sum[t]) : kMinusInfinity;
  }
}

}  // namespace

void attention_forward(const Cpu& be, const AttentionShape& s, In q, In k, In v, Out out, Out lse) {
  check_attention_forward(s, q, k, v, out, lse);
  for_heads(be, s, [&](int64_t sequence, int64_t head) {
    const AttentionHead h(s, sequence, head);
    if (narrow_attention(s, h)) return narrow_attention_forward(s, h, q, k, v, out, lse);
    for (int64_t t = 0; t < h.queries; t += kTileQueries)
      run_tile(s, h, t, std::min(h.queries - t, kTileQueries), q, k, v, out, lse);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
