#include "kernels/cpu/philox.h"

namespace decalign::inline DECALIGN_REAL {

#if defined(__AVX512BW__) && defined(__AVX512DQ__)
namespace {

/// Decisions of 8 * N counters first, first + stride, ..: every 64-bit lane holds a word in its low
/// half; what is in the high half never reaches a result.
template <int N>
inline void keep_blocks(const KeepStream& s, uint64_t first, uint64_t stride, uint8_t* bits) {
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
  const __m512i order = _mm512_mullo_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7),
                                           _mm512_set1_epi64((long long)stride));
  __m512i c0[N], c1[N], c2[N], c3[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    c0[i] =
        _mm512_add_epi64(_mm512_set1_epi64((long long)(first + stride * uint64_t(8 * i))), order);
    c1[i] = _mm512_srli_epi64(c0[i], 32);
    c2[i] = _mm512_set1_epi64(s.op);
    c3[i] = _mm512_set1_epi64(uint32_t(s.step));
  }
  uint32_t key0 = uint32_t(s.seed), key1 = uint32_t(s.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m512i k0 = _mm512_set1_epi64(key0), k1 = _mm512_set1_epi64(key1);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const __m512i a = _mm512_mul_epu32(c0[i], m0), b = _mm512_mul_epu32(c2[i], m1);
      c0[i] = _mm512_ternarylogic_epi64(_mm512_shuffle_epi32(b, _MM_PERM_DDBB), c1[i], k0, 0x96);
      c2[i] = _mm512_ternarylogic_epi64(_mm512_shuffle_epi32(a, _MM_PERM_DDBB), c3[i], k1, 0x96);
      c1[i] = b;
      c3[i] = a;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  const __m512i threshold = _mm512_set1_epi16(short(s.threshold));
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    const __m512i v01 = _mm512_mask_blend_epi32(0xAAAA, c0[i], _mm512_slli_epi64(c1[i], 32));
    const __m512i v23 = _mm512_mask_blend_epi32(0xAAAA, c2[i], _mm512_slli_epi64(c3[i], 32));
    const uint64_t low = _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64(v01, v23), threshold);
    const uint64_t high = _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64(v01, v23), threshold);
    const uint64_t both = low | (high << 32);
    std::memcpy(bits + 8 * i, &both, 8);
  }
}

}  // namespace
#endif

void keep_bits(const KeepStream& s, uint64_t first, int64_t blocks, uint8_t* bits) {
  int64_t i = 0;
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
  for (; i + 24 < blocks; i += 32) {
    uint8_t tail[32];
    const bool whole = i + 32 <= blocks;
    keep_blocks<4>(s, first + uint64_t(i), 1, whole ? bits + i : tail);
    if (!whole) std::memcpy(bits + i, tail, size_t(blocks - i));
  }
  for (; i < blocks; i += 16) {
    uint8_t tail[16];
    const bool whole = i + 16 <= blocks;
    if (blocks - i > 8)
      keep_blocks<2>(s, first + uint64_t(i), 1, whole ? bits + i : tail);
    else
      keep_blocks<1>(s, first + uint64_t(i), 1, tail);
    if (!whole) std::memcpy(bits + i, tail, size_t(blocks - i));
  }
#else
  for (; i < blocks; ++i)
    bits[i] = uint8_t(dropout_keep_bits(s.seed, s.step, s.op, s.threshold, first + uint64_t(i)));
#endif
}

void keep_columns(const KeepStream& s, uint64_t first, uint64_t stride, int64_t count,
                  uint8_t* bytes) {
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
  if (count > 16) return keep_blocks<4>(s, first, stride, bytes);
  if (count > 8) return keep_blocks<2>(s, first, stride, bytes);
  return keep_blocks<1>(s, first, stride, bytes);
#else
  for (int64_t i = 0; i < count; ++i)
    bytes[i] =
        uint8_t(dropout_keep_bits(s.seed, s.step, s.op, s.threshold, first + stride * uint64_t(i)));
#endif
}

}  // namespace decalign::inline DECALIGN_REAL
