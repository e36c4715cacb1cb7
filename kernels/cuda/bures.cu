#include "kernels/bures.h"
#include "kernels/cuda/bures.h"
#include "kernels/cuda/polar.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace bures;
using namespace small;

constexpr int kFlat = 128;

// Factors [d, r] of all prototypes, a block each.
__global__ void __launch_bounds__(kThreads)
    factor_kernel(__grid_constant__ const Problem z, const real* spread, double* factors,
                  double* scratch, int64_t doubles) {
  DYNAMIC_SHARED(double, shared);
  double* const upper = scratch ? scratch + blockIdx.x * doubles : shared;
  for (int64_t i = blockIdx.x; i < z.prototypes; i += gridDim.x) {
    const real* const from = spread + i * z.d * z.r;
    double* const to = factors + i * matrix_size(z.d, z.r);
    if (z.covariance) cholesky(z.d, from, z.ridge, upper);
    for_elements(z.d, z.r, [&](int row, int j) {
      to[row * stride(z.r) + j] =
          z.covariance ? upper[j * stride(z.d) + row] : double(from[row * z.r + j]);
    });
  }
}

// A pair: the rotation, the distance and, unless `kept` is null, the displacements.
__device__ double procrustes(const Problem& z, const double* one, const double* other,
                             PolarWork work, real* kept) {
  const int ld = stride(z.r);
  product(z.r, z.d, z.r, transposed(one, z.r), as_is(other, z.r),
          [&](int i, int j, double value) { work.x[i * ld + j] = value; });
  orthogonal_factor(z.r, work);
  double sum = 0;
  product(z.d, z.r, z.r, as_is(one, z.r), as_is(work.x, z.r), [&](int i, int j, double value) {
    const double e = other[i * ld + j] - value;
    sum += e * e;
    if (kept) kept[(z.d + i) * z.r + j] = real(e);
  });
  if (kept)
    product(z.d, z.r, z.r, as_is(other, z.r), transposed(work.x, z.r),
            [&](int i, int j, double value) { kept[i * z.r + j] = real(one[i * ld + j] - value); });
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    pair_kernel(__grid_constant__ const Problem z, const real* means, const double* factors,
                real* cost, real* kept, double* scratch, int64_t doubles) {
  DYNAMIC_SHARED(double, shared);
  double* const memory = scratch ? scratch + blockIdx.x * doubles : shared;
  const int64_t square = matrix_size(z.r, z.r), size = matrix_size(z.d, z.r);
  for (int64_t at = blockIdx.x; at < z.pairs; at += gridDim.x) {
    int64_t one, other;
    pair_at(z, at, one, other);
    double sum = procrustes(z, factors + one * size, factors + other * size,
                            {memory, memory + square, memory + 2 * square, memory + 3 * square},
                            kept ? kept + 2 * at * z.d * z.r : nullptr);
    for (int t = threadIdx.x; t < z.d; t += kThreads) {
      const double e = double(means[one * z.d + t]) - double(means[other * z.d + t]);
      sum += e * e;
    }
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) cost[at] = real(z.scale * sum);
  }
}

// A warp per pair of diagonal Gaussians.
__global__ void __launch_bounds__(kFlat)
    diagonal_kernel(__grid_constant__ const Problem z, const real* means, const real* variances,
                    real* cost) {
  const int64_t at = int64_t(blockIdx.x) * (kFlat / 32) + threadIdx.x / 32;
  if (at >= z.pairs) return;
  int64_t one, other;
  pair_at(z, at, one, other);
  double sum = 0;
  for (int t = threadIdx.x % 32; t < z.d; t += 32) {
    const int64_t i = one * z.d + t, j = other * z.d + t;
    const double v = double(variances[i]), w = double(variances[j]);
    const double e = double(means[i]) - double(means[j]);
    const double roots = sqrt(v + z.ridge) + sqrt(w + z.ridge);
    const double b = roots > 0 ? (v - w) / roots : roots;
    sum += e * e + b * b;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) cost[at] = real(z.scale * sum);
}

}  // namespace

size_t bures_scratch_bytes(const Cuda& be, const BuresShape& s) {
  check_bures_sizes(s);
  if (s.diagonal()) return 0;
  const int64_t forward = std::max(forward_blocks(s).scratch(be, s.pairs()),
                                   factor_blocks(s).scratch(be, s.prototypes()));
  return carve_bytes<double>(s.prototypes() * matrix_size(int(s.width), int(s.rank))) +
         carve_bytes<double>(std::max(forward, backward_blocks(s).scratch(be, s.prototypes())));
}

void bures_forward(const Cuda& be, const BuresShape& s, In means, In spread, Out cost, Out kept,
                   Scratch scratch) {
  check_bures(s, means, spread, cost, kept, scratch, bures_scratch_bytes(be, s));
  const Problem z = problem(s);
  if (s.diagonal()) {
    note_flops(kDouble * 12 * double(z.pairs * z.d));
    return launch(be, diagonal_kernel, unsigned(ceil_div<int64_t>(z.pairs, kFlat / 32)), kFlat, 0,
                  z, means.data(), spread.data(), cost.data());
  }
  if (z.pairs == 0) return;
  double* const factors = carve<double>(scratch, s.prototypes() * matrix_size(z.d, z.r));
  double* const work = reinterpret_cast<double*>(scratch.data());
  const Blocks f = factor_blocks(s), p = forward_blocks(s);
  const double cube = double(z.r) * z.r * z.d;
  note_flops(kDouble * double(z.prototypes) * (z.covariance ? cube / 3 : 0));
  launch(be, factor_kernel, unsigned(f.count(be, z.prototypes)), kThreads, f.shared, z,
         spread.data(), factors, f.shared > 0 ? nullptr : work, f.doubles);
  note_flops(kDouble * double(z.pairs) * cube * 2 * (3 * 9 + 3));
  launch(be, pair_kernel, unsigned(p.count(be, z.pairs)), kThreads, p.shared, z, means.data(),
         factors, cost.data(), pointer(kept), p.shared > 0 ? nullptr : work, p.doubles);
}

}  // namespace decalign::inline DECALIGN_REAL
