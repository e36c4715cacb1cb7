// Forward attention: online softmax over tiles of 64 queries x 128 keys (flash attention's
// recurrence; a sequence of up to 128 keys is one tile).
#include "kernels/attention.h"

#include "kernels/cpu/attention_tile.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr real kMinusInfinity = -std::numeric_limits<real>::infinity();

struct Softmax {
  real largest[kTileQueries], sum[kTileQueries];
};

// Scores of query t and keys [j0, j0 + count) become dropped exponentials; returns the factor that
// earlier results have to be multiplied with.
real exponentials(const AttentionShape& s, const AttentionHead& h, int64_t t, int64_t j0,
                  int64_t count, real* row, real& largest, real& sum) {
  const int64_t limit = visible(s, t, j0, count);
  vreal highest = broadcast(largest);
  for (int64_t j = 0; j < limit; j += kLanes)
    highest = vmax(load_partial(row + j, std::min(limit - j, kLanes), kMinusInfinity), highest);
  const real before = largest;
  largest = max_lanes(highest);
  uint8_t bits[kTileKeys / 8 + 16];
  const bool drop = h.keep.threshold > 0;
  if (drop) h.keep_run(s, t, j0, limit, bits);
  vreal total{};
  for (int64_t j = 0; j < limit; j += kLanes) {
    vreal p = vexp(load_partial(row + j, std::min(limit - j, kLanes), kMinusInfinity) - largest);
    total += p;
    if (drop) {
      uint32_t word;
      std::memcpy(&word, bits + j / 8, 4);
      p = keep_lanes(word >> (j % 8), p * h.keep.scale);
    }
    store(row + j, p);
  }
  for (int64_t j = round_up(limit, kLanes); j < count; j += kLanes) store(row + j, vreal{});
  const real factor = j0 == 0 ? real(0) : std::exp(before - largest);
  sum = sum * factor + sum_lanes(total);
  return factor;
}

// Queries [t0, t0 + n) of one head.
void run_tile(const AttentionShape& s, const AttentionHead& h, int64_t t0, int64_t n, In q, In k,
              In v, Out out, Out lse) {
  alignas(64) real scores[kTileQueries * kTileKeys];
  alignas(64) real rows[kTileKeys * kTileDepth], packed[packed_size(kTileKeys, kTileDepth)];
  Softmax state;
  std::fill_n(state.largest, n, kMinusInfinity);
  std::fill_n(state.sum, n, real(0));
  real* o = out.data() + h.out_offset + t0 * s.width;
  const int64_t keys = s.causal ? std::min(h.keys, t0 + n) : h.keys;
  for (int64_t j0 = 0; j0 < keys; j0 += kTileKeys) {
    const int64_t count = std::min(keys - j0, kTileKeys);
    key_products(s, h, n, q.data() + h.query_offset + t0 * h.query_stride, h.query_stride,
                 k.data(), j0, count, h.scale, scores);
    for (int64_t t = 0; t < n; ++t) {
      const real factor = exponentials(s, h, t0 + t, j0, count, scores + t * kTileKeys,
                                       state.largest[t], state.sum[t]);
      for (int64_t c = 0; j0 > 0 && c < h.depth; ++c) o[t * s.width + c] *= factor;
    }
    for (int64_t c0 = 0; c0 < h.depth; c0 += kTileDepth) {
      const int64_t depth = std::min(h.depth - c0, kTileDepth);
      gather_keys(s, h, j0, count, c0, depth, v.data(), rows);
      pack(rows, depth, count, depth, packed);
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
  check_attention(s, q, k, v);
  expect(std::ssize(out) == s.queries.total() * s.width, "attention: out must be [R, width]");
  expect(std::ssize(lse) == s.queries.total() * s.heads, "attention: lse must be [R, heads]");
  for_heads(be, s, [&](int64_t sequence, int64_t head) {
    const AttentionHead h(s, sequence, head);
    for (int64_t t = 0; t < h.queries; t += kTileQueries)
      run_tile(s, h, t, std::min(h.queries - t, kTileQueries), q, k, v, out, lse);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
