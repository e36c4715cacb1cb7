#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/prototype.h"
#include "kernels/cuda/reduce.h"
#include "kernels/prototype.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kForwardThreads = 1024;
constexpr int64_t kSmall = 1 << 18;  // terms that one block sums faster than two launches
constexpr int kBlocks = 128;         // of a larger sum
constexpr int kRun = 16;             // terms that are summed before they become double

struct Sizes {
  int M, B, K, d;
};

struct Inputs {
  const real *x, *posteriors, *means, *variances;  // variances: null without mahalanobis
  double floor;

  __device__ double precision(int64_t at) const {
    return variances ? 1 / max(double(variances[at]), floor) : 1;
  }
};

// What a block finds of the sum: a thread has one column of one prototype and every `slices`-th row
// of the other modalities. The terms are not negative, so that short runs may be summed in `real`.
__global__ void __launch_bounds__(kForwardThreads)
    forward_kernel(Sizes s, Inputs in, int slices, double weight, double* partial, real* value) {
  const int columns = s.M * s.K * s.d, rows = (s.M - 1) * s.B;
  const int64_t units = int64_t(columns) * slices;
  double sum = 0;
  for (int64_t unit = int64_t(blockIdx.x) * kForwardThreads + threadIdx.x; unit < units;
       unit += int64_t(gridDim.x) * kForwardThreads) {
    const int slice = int(unit / columns), column = int(unit % columns);
    const int k = column / s.d, t = column % s.d, j = k / s.K;
    const real mu = in.means[column];
    double mine = 0;
    for (int begin = slice; begin < rows; begin += kRun * slices) {
      real run = 0;
#pragma unroll 8
      for (int r = begin; r < min(begin + kRun * slices, rows); r += slices) {
        const int64_t n = r < j * s.B ? r : r + s.B;
        const real e = in.x[n * s.d + t] - mu;
        run += in.posteriors[n * s.K + k % s.K] * (e * e);
      }
      mine += double(run);
    }
    sum += mine * in.precision(column);
  }
  sum = block_sum<kForwardThreads>(sum);
  if (threadIdx.x > 0) return;
  if (gridDim.x > 1)
    partial[blockIdx.x] = sum;
  else
    *value = real(sum * weight);
}

__global__ void sum_kernel(double weight, const double* partial, real* value) {
  double sum = 0;
  for (int b = threadIdx.x; b < kBlocks; b += 32) sum += partial[b];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) *value = real(sum * weight);
}

struct Gradients {
  real *x, *posteriors, *means, *variances;  // null where there is none
  // Blocks of each kind, in this order: a thread per element of dx, a warp per element of
  // dposteriors, a block per prototype and 32 columns.
  int x_blocks, posterior_blocks;
};

__device__ void x_backward(const Sizes& s, const Inputs& in, double g, int block, real* dx) {
  const int64_t at = int64_t(block) * kThreads + threadIdx.x;
  if (at >= int64_t(s.M) * s.B * s.d) return;
  const int n = int(at / s.d), t = int(at % s.d), i = n / s.B;
  const double x = double(in.x[at]);
  double sum = 0;
  for (int j = 0; j < s.M; ++j) {
    if (j == i) continue;
#pragma unroll 4
    for (int k = 0; k < s.K; ++k) {
      const int64_t p = int64_t(j * s.K + k) * s.d + t;
      sum +=
          double(in.posteriors[int64_t(n) * s.K + k]) * (x - double(in.means[p])) * in.precision(p);
    }
  }
  dx[at] = real(double(dx[at]) + 2 * g * sum);
}

__device__ void posteriors_backward(const Sizes& s, const Inputs& in, double g, int block,
                                    real* dposteriors) {
  const int64_t at = int64_t(block) * kWarps + threadIdx.x / 32;
  if (at >= int64_t(s.M) * s.B * s.K) return;
  const int n = int(at / s.K), k = int(at % s.K), i = n / s.B;
  double sum = 0;
  for (int t = threadIdx.x % 32; t < s.d; t += 32) {
    const double x = double(in.x[int64_t(n) * s.d + t]);
#pragma unroll 2
    for (int j = 0; j < s.M; ++j) {
      if (j == i) continue;
      const int64_t p = int64_t(j * s.K + k) * s.d + t;
      const double e = x - double(in.means[p]);
      sum += e * e * in.precision(p);
    }
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) dposteriors[at] = real(double(dposteriors[at]) + g * sum);
}

// A lane per column, the warps share the rows of the other modalities.
__device__ void prototypes_backward(const Sizes& s, const Inputs& in, double g, int block,
                                    real* dmeans, real* dvariances) {
  SHARED(double, part, [2][kWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, chunks = (s.d + 31) / 32;
  const int prototype = block / chunks, t = block % chunks * 32 + lane, j = prototype / s.K;
  const int64_t at = int64_t(prototype) * s.d + t;
  double dmu = 0, dv = 0;
  if (t < s.d) {
    const double mu = double(in.means[at]), p = in.precision(at);
#pragma unroll 4
    for (int r = warp; r < (s.M - 1) * s.B; r += kWarps) {
      const int64_t n = r < j * s.B ? r : r + s.B;
      const double w = double(in.posteriors[n * s.K + prototype % s.K]);
      const double e = (double(in.x[n * s.d + t]) - mu) * p;
      dmu += w * e;
      dv += w * (e * e);
    }
  }
  part[0][warp][lane] = dmu;
  part[1][warp][lane] = dv;
  __syncthreads();
  real* const out = warp == 0 ? dmeans : dvariances;
  if (warp > 1 || t >= s.d || !out) return;
  if (warp == 1 && double(in.variances[at]) < in.floor) return;
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += part[warp][w][lane];
  out[at] = real(double(out[at]) - (warp == 0 ? 2 * g : g) * sum);
}

__global__ void __launch_bounds__(kThreads, 2)
    backward_kernel(Sizes s, const __grid_constant__ Inputs in, double weight, const real* dvalue,
                    const __grid_constant__ Gradients out) {
  const double g = double(*dvalue) * weight;
  int block = blockIdx.x;
  if (block < out.x_blocks) return x_backward(s, in, g, block, out.x);
  block -= out.x_blocks;
  if (block < out.posterior_blocks) return posteriors_backward(s, in, g, block, out.posteriors);
  prototypes_backward(s, in, g, block - out.posterior_blocks, out.means, out.variances);
}

Sizes sizes(const PrototypeShape& s) {
  return {int(s.modalities), int(s.batch), int(s.components), int(s.width)};
}

Inputs inputs(const PrototypeShape& s, In x, In posteriors, In means, In variances) {
  return {x.data(), posteriors.data(), means.data(),
          s.options.mahalanobis ? variances.data() : nullptr, s.options.variance_floor};
}

}  // namespace

size_t prototype_scratch_bytes(const Cuda&, const PrototypeShape&) {
  return carve_bytes<double>(kBlocks);
}

void prototype_forward(const Cuda& be, const PrototypeShape& s, In x, In posteriors, In means,
                       In variances, Out value, Scratch scratch) {
  check_prototype(s, x, posteriors, means, variances, value, scratch,
                  prototype_scratch_bytes(be, s));
  const double weight = prototype_term_weight(s);
  double* const partial = carve<double>(scratch, kBlocks);
  const int64_t columns = s.modalities * s.components * s.width;
  const int64_t rows = (s.modalities - 1) * s.batch;
  const int blocks = columns * rows <= kSmall ? 1 : kBlocks;
  // As many units as threads, of at least four rows.
  const int64_t slices = std::clamp<int64_t>(
      blocks * kForwardThreads / std::max<int64_t>(columns, 1), 1, std::max<int64_t>(rows / 4, 1));
  note_flops(4.0 * double(columns * rows));
  launch(be, forward_kernel, unsigned(blocks), kForwardThreads, 0, sizes(s),
         inputs(s, x, posteriors, means, variances), int(slices), weight, partial, value.data());
  if (blocks > 1) launch(be, sum_kernel, 1, 32, 0, weight, partial, value.data());
}

void prototype_backward(const Cuda& be, const PrototypeShape& s, In x, In posteriors, In means,
                        In variances, In dvalue, InOut dx, InOut dposteriors, InOut dmeans,
                        InOut dvariances, Scratch scratch) {
  check_prototype_backward(s, x, posteriors, means, variances, dvalue, dx, dposteriors, dmeans,
                           dvariances, scratch, prototype_scratch_bytes(be, s));
  if (s.modalities < 2 || s.batch == 0) return;
  if (!s.options.mahalanobis) dvariances = {};
  const auto blocks = [](size_t elements, int per_block) {
    return int(ceil_div<int64_t>(int64_t(elements), per_block));
  };
  const Gradients out{
      pointer(dx),         pointer(dposteriors),        pointer(dmeans),
      pointer(dvariances), blocks(dx.size(), kThreads), blocks(dposteriors.size(), kWarps)};
  const int64_t prototype_blocks =
      out.means || out.variances ? s.modalities * s.components * ceil_div<int64_t>(s.width, 32) : 0;
  // 4 for dx, 4 for the posteriors', 6 for the prototypes' gradients.
  note_flops(kDouble * 14 * double((s.modalities - 1) * std::ssize(x) * s.components));
  launch(be, backward_kernel, unsigned(out.x_blocks + out.posterior_blocks + int(prototype_blocks)),
         kThreads, 0, sizes(s), inputs(s, x, posteriors, means, variances),
         prototype_term_weight(s), dvalue.data(), out);
}

}  // namespace decalign::inline DECALIGN_REAL
