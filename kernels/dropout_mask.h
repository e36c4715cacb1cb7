// Counter-based random numbers: the dropout mask is a function of (seed, step, op, element), never
// stored.
#pragma once

#include <array>

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// Philox-4x32-10 (Salmon et al., SC 2011): four 32-bit words from a 128-bit counter and a 64-bit
/// key.
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53u) * c[0], b = uint64_t(0xCD9E8D57u) * c[2];
    c = {uint32_t(b >> 32) ^ c[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ key[1],
         uint32_t(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

/// What a run draws from, in the backend's memory, so that a recorded step can be replayed with new
/// numbers.
struct RandomState {
  uint64_t seed = 0;
  uint64_t step = 0;
};

/// Inverted dropout: y = x / (1 - rate) where kept, else 0. One Philox call decides eight elements,
/// 16 bits each: element e of this op is kept if half-word e % 8 of philox({e / 8 low, e / 8 high,
/// op, step}, seed) >= threshold(), halves counted from the low half of word 0. The rate is
/// therefore a multiple of 2^-16; scale() is its exact inverse.
struct Dropout {
  double rate = 0;                     ///< probability of a zero, in [0, 1); 0 switches the op off
  const RandomState* state = nullptr;  ///< may be null if rate is 0
  uint32_t op = 0;                     ///< distinguishes the ops of a step

  bool on() const { return threshold() > 0; }
  uint32_t threshold() const { return uint32_t(rate * 65536 + 0.5); }
  real scale() const { return real(65536.0 / double(65536 - threshold())); }
};

/// The eight decisions of elements 8 block .. 8 block + 7: bit i is set where element 8 block + i
/// is kept.
constexpr uint32_t dropout_keep_bits(uint64_t seed, uint64_t step, uint32_t op, uint32_t threshold,
                                     uint64_t block) {
  const auto word = philox({uint32_t(block), uint32_t(block >> 32), op, uint32_t(step)},
                           {uint32_t(seed), uint32_t(seed >> 32)});
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 8; ++i)
    bits |= uint32_t(((word[i / 2] >> (16 * (i % 2))) & 0xffffu) >= threshold) << i;
  return bits;
}

}  // namespace decalign::inline DECALIGN_REAL
