// What the two ways to a discrepancy of two samples have in common.
#pragma once

#include "kernels/check/mmd_two_sample.h"
#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL::two_sample {

constexpr int kMost = int(kMmdBandwidths);

struct Samples {
  int64_t x_rows, y_rows, width;
  TwoSampleFactors factors;
  int bandwidths;
  int slices = 1;  // of what a row meets, each summed by itself
  const real *x = nullptr, *y = nullptr, *bandwidth = nullptr, *weight = nullptr;
  real *dx = nullptr, *dy = nullptr, *dbandwidths = nullptr;  // null: not computed

  __device__ double factor(bool is_y, bool other_is_y) const {
    return is_y != other_is_y ? factors.between : is_y ? factors.y : factors.x;
  }
};

/// Of every block of every slice: value, slopes [L]. Unordered pairs count once.
struct Sums {
  double *value, *slope;
};

struct alignas(4 * sizeof(real)) Kernel {
  real scale, weight, slope;
  real square;  // 1: of the one before
};

/// A lane per bandwidth. k = exp(scale d^2), or exp2 with `unit` log2 e.
__device__ inline void set_kernels(const Samples& s, double unit, Kernel* kernels) {
  const int l = threadIdx.x;
  if (l >= s.bandwidths) return;
  const real b = s.bandwidth[l];
  const double inverse = b > 0 ? 1 / double(b) : double(NAN);
  kernels[l] = {real(-0.5 * inverse * unit), s.weight[l], real(double(s.weight[l]) * inverse),
                real(l > 0 && is_half(b, s.bandwidth[l - 1]))};
}

#ifndef DECALIGN_F64
/// MmdArithmetic::products: queues what fills the sums, of so many blocks a slice, and dx and dy.
int64_t products_blocks(const Samples&);
size_t products_scratch_bytes(const Samples&);
void products(const Cuda&, const Samples&, const Sums&, Scratch);
#endif

}  // namespace decalign::inline DECALIGN_REAL::two_sample
