#include "kernels/check/gaussian_cost.h"
#include "kernels/cuda/reduce.h"
#include "kernels/gaussian_cost.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kEps = 1e-8;
constexpr int kForwardThreads = 128;
constexpr int kThreads = 256, kWarps = kThreads / 32;

double factor(const GaussianCostShape& s) {
  return s.reduction == Reduction::sum || s.width == 0 ? 1 : 1 / double(s.width);
}

// Position of the pair (i, j), i < j < M, in lexicographic order.
__device__ int pair_index(int M, int i, int j) { return i * M - i * (i + 1) / 2 + j - i - 1; }

// A warp per entry of the cost.
__global__ void __launch_bounds__(kForwardThreads)
    forward_kernel(int M, int K, int d, double scale, const real* means, const real* variances,
                   real* cost) {
  const int entry = int(blockIdx.x * (kForwardThreads / 32) + threadIdx.x / 32);
  int pair = entry / (K * K), i = 0;
  if (pair >= M * (M - 1) / 2) return;
  for (; pair >= M - 1 - i; ++i) pair -= M - 1 - i;
  const int64_t one = int64_t(i * K + entry / K % K) * d;
  const int64_t other = int64_t((i + 1 + pair) * K + entry % K) * d;
  double sum = 0;
  for (int t = threadIdx.x % 32; t < d; t += 32) {
    const double e = double(means[one + t]) - double(means[other + t]);
    const double p = double(variances[one + t]), q = double(variances[other + t]);
    sum += e * e + (p + q - 2 * sqrt(p * q + kEps));
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) cost[entry] = real(scale * sum);
}

// A block per prototype and 32 columns: a lane per column, the warps share the other prototypes.
__global__ void __launch_bounds__(kThreads)
    backward_kernel(int M, int K, int d, double scale, const real* means, const real* variances,
                    const real* dcost, real* dmeans, real* dvariances) {
  SHARED(double, part, [2][kWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int one = blockIdx.x, i = one / K, a = one % K, t = int(blockIdx.y) * 32 + lane;
  const int64_t at = int64_t(one) * d + t;
  double dmu = 0, dv = 0;
  if (t < d) {
    const double mu = double(means[at]), v = double(variances[at]);
#pragma unroll 2
    for (int n = warp; n < (M - 1) * K; n += kWarps) {
      const int other = n < i * K ? n : n + K, j = other / K, b = other % K;
      const double g = double(dcost[i < j ? (pair_index(M, i, j) * K + a) * K + b
                                          : (pair_index(M, j, i) * K + b) * K + a]);
      const int64_t from = int64_t(other) * d + t;
      const double q = double(variances[from]);
      dmu += g * (mu - double(means[from]));
      dv += g * (1 - q / sqrt(v * q + kEps));
    }
  }
  part[0][warp][lane] = dmu;
  part[1][warp][lane] = dv;
  __syncthreads();
  real* const out = warp == 0 ? dmeans : dvariances;
  if (warp > 1 || t >= d || !out) return;
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += part[warp][w][lane];
  out[at] = real(double(out[at]) + (warp == 0 ? 2 * scale : scale) * sum);
}

}  // namespace

void gaussian_cost_forward(const Cuda& be, const GaussianCostShape& s, In means, In variances,
                           Out cost) {
  check_gaussian_cost(s, means, variances, cost);
  note_flops(kDouble * 10 * double(std::ssize(cost) * s.width));
  launch(be, forward_kernel, unsigned(ceil_div<int64_t>(std::ssize(cost), kForwardThreads / 32)),
         kForwardThreads, 0, int(s.modalities), int(s.components), int(s.width), factor(s),
         means.data(), variances.data(), cost.data());
}

void gaussian_cost_backward(const Cuda& be, const GaussianCostShape& s, In means, In variances,
                            In dcost, InOut dmeans, InOut dvariances) {
  check_gaussian_cost_backward(s, means, variances, dcost, dmeans, dvariances);
  if (s.modalities < 2 || (dmeans.empty() && dvariances.empty())) return;
  note_flops(kDouble * 2 * 9 * double(std::ssize(dcost) * s.width));
  launch(be, backward_kernel,
         dim3(unsigned(s.modalities * s.components), unsigned(ceil_div<int64_t>(s.width, 32))),
         kThreads, 0, int(s.modalities), int(s.components), int(s.width), factor(s), means.data(),
         variances.data(), dcost.data(), pointer(dmeans), pointer(dvariances));
}

}  // namespace decalign::inline DECALIGN_REAL
