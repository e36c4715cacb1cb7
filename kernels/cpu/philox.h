// Dropout decisions for runs of consecutive elements, eight Philox counters per register.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/cpu/simd.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// A Dropout with its random state read, for one kernel call.
struct KeepStream {
  explicit KeepStream(const Dropout& d) : threshold(d.threshold()), op(d.op), scale(d.scale()) {
    if (threshold > 0) seed = d.state->seed, step = d.state->step;
  }
  uint64_t seed = 0, step = 0;
  uint32_t threshold = 0, op = 0;
  real scale = 1;
};

/// bits[i] = dropout_keep_bits(.., first + i) for i < blocks. threshold must be below 65536.
void keep_bits(const KeepStream& s, uint64_t first, int64_t blocks, uint8_t* bits);

/// bytes[i] = dropout_keep_bits(.., first + i * stride) for i < count <= 32; up to 32 bytes are
/// written.
void keep_columns(const KeepStream& s, uint64_t first, uint64_t stride, int64_t count,
                  uint8_t* bytes);

/// Bit i: bit `bit` of bytes[i], i < kLanes.
inline uint32_t column_bits(const uint8_t* bytes, int bit) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  return uint32_t(_mm_movepi8_mask(_mm_sll_epi16(b, _mm_cvtsi32_si128(7 - bit))));
#else
  uint32_t bits = 0;
  for (int i = 0; i < int(kLanes); ++i) bits |= uint32_t((bytes[i] >> bit) & 1) << i;
  return bits;
#endif
}

/// The decisions of up to kCapacity consecutive elements.
class KeepRun {
 public:
  static constexpr int64_t kCapacity = 1024;
  KeepRun(const KeepStream& s, int64_t first, int64_t count) : offset_(first % 8) {
    keep_bits(s, uint64_t(first / 8), (offset_ + count + 7) / 8, bits_);
  }
  /// Bit i: element first + position + i is kept; kLanes bits are valid.
  uint64_t at(int64_t position) const {
    if (offset_ == 0 && position % kLanes == 0) return lane_bits(bits_, position);
    uint64_t word;
    std::memcpy(&word, bits_ + (offset_ + position) / 8, 8);
    return word >> ((offset_ + position) % 8);
  }

 private:
  int64_t offset_;
  uint8_t bits_[kCapacity / 8 + 16];
};

}  // namespace decalign::inline DECALIGN_REAL
