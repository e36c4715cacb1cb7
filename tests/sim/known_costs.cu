// Kernels whose cost is known.
#include "tests/sim/faults.h"

namespace decalign::test {
namespace {

constexpr int kThreads = 64;

__global__ void coalesced_kernel(const float* x, float* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i];
}

__global__ void vector_kernel(const float* x, float* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  reinterpret_cast<float4*>(y)[i] = reinterpret_cast<const float4*>(x)[i];
}

__global__ void scattered_kernel(const float* x, float* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[8 * i];
}

// The lanes' loops differ in length, and every access still goes with the others' of its turn.
__global__ void diverged_kernel(const float* x, float* y) {
  float total = 0;
  for (unsigned j = 0; j <= threadIdx.x % 2; ++j) total += x[j * kThreads + threadIdx.x];
  y[threadIdx.x] = total;
}

template <int kPitch>
__global__ void bank_kernel(float* y) {
  SHARED(float, tile, [32 * kPitch]);
  const unsigned i = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    tile[i * kPitch] = float(i);
    __syncwarp();
    y[i] = tile[i * kPitch];
  }
  __syncthreads();
  for (unsigned b = 0; b < blockIdx.x; ++b) __syncthreads();
}

__global__ void pairs_kernel(double* y) {
  SHARED(double, tile, [kThreads]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];
}

}  // namespace

void run_known_costs() {
  const Cuda be;
  const Array<float> x(8 * 2 * kThreads, 1), y(8 * kThreads);
  const Array<double> z(kThreads);
  for (int i = 0; i < 3; ++i) launch(be, coalesced_kernel, 2, kThreads, 0, x.get(), y.get());
  launch(be, vector_kernel, 2, kThreads, 0, x.get(), y.get());
  launch(be, scattered_kernel, 2, kThreads, 0, x.get(), y.get());
  launch(be, diverged_kernel, 1, kThreads, 0, x.get(), y.get());
  launch(be, bank_kernel<32>, 1, kThreads, 0, y.get());
  launch(be, bank_kernel<33>, 1, kThreads, 0, y.get());
  launch(be, pairs_kernel, 1, kThreads, 0, z.get());
}

}  // namespace decalign::test
