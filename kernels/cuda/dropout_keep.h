// The decisions of a dropout on the device: kernels/dropout_mask.h, with the run's numbers read
// from device memory.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// What a kernel needs of a Dropout.
struct DeviceDropout {
  const RandomState* state = nullptr;
  uint32_t op = 0, threshold = 0;
  real scale = 1;

  DeviceDropout() = default;
  explicit DeviceDropout(const Dropout& d)
      : state(d.state),
        op(d.op),
        threshold(d.on() ? d.threshold() : 0),
        scale(d.on() ? d.scale() : real(1)) {}
};

/// Philox on the device: the same words as philox() of kernels/dropout_mask.h.
__device__ inline uint4 device_philox(uint4 c, uint64_t seed) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t a_high = __umulhi(0xD2511F53u, c.x), a_low = 0xD2511F53u * c.x;
    const uint32_t b_high = __umulhi(0xCD9E8D57u, c.z), b_low = 0xCD9E8D57u * c.z;
    c.x = b_high ^ c.y ^ k0, c.y = b_low, c.z = a_high ^ c.w ^ k1, c.w = a_low;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return c;
}

/// dropout_keep_bits() on the device.
__device__ inline uint32_t device_keep_bits(const DeviceDropout& d, uint64_t seed, uint64_t step,
                                            uint64_t block) {
  const uint4 c =
      device_philox({uint32_t(block), uint32_t(block >> 32), d.op, uint32_t(step)}, seed);
  const uint32_t t = d.threshold;
  return uint32_t((c.x & 0xffffu) >= t) | uint32_t((c.x >> 16) >= t) << 1 |
         uint32_t((c.y & 0xffffu) >= t) << 2 | uint32_t((c.y >> 16) >= t) << 3 |
         uint32_t((c.z & 0xffffu) >= t) << 4 | uint32_t((c.z >> 16) >= t) << 5 |
         uint32_t((c.w & 0xffffu) >= t) << 6 | uint32_t((c.w >> 16) >= t) << 7;
}

/// The factor of one element: scale or 0; 1 where the op is off. For elements in no order; a thread
/// that owns eight neighbours asks device_keep_bits once.
__device__ inline real device_keep(const DeviceDropout& d, uint64_t element) {
  if (d.threshold == 0) return 1;
  const uint32_t bits = device_keep_bits(d, d.state->seed, d.state->step, element / 8);
  return bits >> (element % 8) & 1 ? d.scale : real(0);
}

}  // namespace decalign::inline DECALIGN_REAL
