#include "tests/sim/faults.h"

namespace decalign::test {
namespace {

constexpr int kThreads = 64;

// Where a kernel is templated on kFault, kFault is the fault.

template <bool kFault>
__global__ void shift_kernel(const float* x, float* y, int n) {
  const int i = int(threadIdx.x);
  if (i < n) y[i] = x[kFault ? i + 1 : i];
}

template <bool kFault>
__global__ void fill_kernel(float* y, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (kFault ? i <= n : i < n) y[i] = 1;
}

template <bool kFault>
__global__ void before_kernel(const float* x, float* y) {
  const int i = int(threadIdx.x);
  y[i] = x[kFault ? i - 1 : i];
}

template <bool kFault>
__global__ void no_tail_guard_kernel(const float* x, float* y, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (kFault || i < n) y[i] = 2 * x[i];
}

// Four at a time, and what is left over.
template <bool kFault>
__global__ void tail_kernel(float* y, int n) {
  const int i = int(threadIdx.x), fours = n / 4;
  if (i < fours) reinterpret_cast<float4*>(y)[i] = make_float4(1, 2, 3, 4);
  if (!kFault && i < n % 4) y[4 * fours + i] = 5;
}

template <bool kFault>
__global__ void shared_read_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  tile[i] = float(i);
  __syncthreads();
  y[i] = tile[kFault ? i + 1 : kThreads - 1 - i];
}

template <bool kFault>
__global__ void shared_write_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  SHARED(float, next, [kThreads]);  // what lies behind does not excuse it
  const int i = int(threadIdx.x);
  next[i] = 0;
  tile[kFault ? i + 1 : i] = float(i);
  __syncthreads();
  y[i] = tile[kThreads - 1 - i] + next[i];
}

__global__ void dynamic_kernel(float* y) {
  DYNAMIC_SHARED(float, tile);
  const int i = int(threadIdx.x);
  tile[i] = 1;
  __syncthreads();
  y[i] = tile[kThreads - 1 - i];
}

template <bool kFault>
__global__ void uninitialised_shared_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  if (!kFault || i != 5) tile[i] = 1;
  __syncthreads();
  y[blockIdx.x * kThreads + threadIdx.x] = tile[kThreads - 1 - i];
}

__global__ void copy_kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

__global__ void load4_kernel(const float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + 4 * threadIdx.x);
  y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

__global__ void store2_kernel(float* y) {
  reinterpret_cast<float2*>(y)[threadIdx.x] = make_float2(1, 2);
}

template <bool kFault>
__global__ void local_kernel(float* y) {
  SHARED(float*, where, [kThreads]);
  const int i = int(threadIdx.x);
  float mine = float(i);
  where[i] = &mine;
  __syncthreads();
  y[i] = *where[kFault ? kThreads - 1 - i : i];
  __syncthreads();
}

template <int kWords>
__global__ void large_kernel(float* y) {
  SHARED(float, tile, [kWords]);
  tile[threadIdx.x] = 1;
  y[threadIdx.x] = tile[threadIdx.x];
}

void host_read(bool fault) {
  const Array<float> x(kThreads, 1);
  float first;
  if (fault)
    first = *const_cast<const volatile float*>(x.get());
  else
    CUDA_CHECK(cudaMemcpy(&first, x.get(), sizeof first, cudaMemcpyDeviceToHost));
}

void use_after_free(bool fault) {
  Array<float> y(kThreads);
  auto x = std::make_unique<Array<float>>(kThreads, 1.f);
  const float* const memory = x->get();
  if (fault) x.reset();
  launch(Cuda{}, copy_kernel, 1, kThreads, 0, memory, y.get());
}

}  // namespace

std::vector<Fault> memory_faults() {
  return {
      {"a read one past the end", "out of bounds: read of 4 bytes, 0 bytes past the end of device",
       [](bool fault) {
         const Array<float> x(kThreads, 1), y(kThreads);
         launch(Cuda{}, fault ? shift_kernel<true> : shift_kernel<false>, 1, kThreads, 0, x.get(),
                y.get(), kThreads);
       }},
      {"a write one past the end",
       "out of bounds: write of 4 bytes, 0 bytes past the end of device",
       [](bool fault) {
         const Array<float> y(100);
         launch(Cuda{}, fault ? fill_kernel<true> : fill_kernel<false>, 2, kThreads, 0, y.get(),
                100);
       }},
      {"a read before the start", "out of bounds: read of 4 bytes, 4 bytes before an allocation",
       [](bool fault) {
         const Array<float> x(kThreads, 1), y(kThreads);
         launch(Cuda{}, fault ? before_kernel<true> : before_kernel<false>, 1, kThreads, 0, x.get(),
                y.get());
       }},
      {"no guard for the last block", "out of bounds: read",
       [](bool fault) {
         const Array<float> x(100, 1), y(100);
         launch(Cuda{}, fault ? no_tail_guard_kernel<true> : no_tail_guard_kernel<false>, 2,
                kThreads, 0, x.get(), y.get(), 100);
       }},
      {"a tail that nobody writes",
       "copy to the host of uninitialised device memory, byte 160 of 172",
       [](bool fault) {
         const Array<float> y(43);
         launch(Cuda{}, fault ? tail_kernel<true> : tail_kernel<false>, 1, kThreads, 0, y.get(),
                43);
         y.download();
       }},
      {"a read past shared memory", "read of 4 bytes, 0 bytes past the end of shared `tile`",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, fault ? shared_read_kernel<true> : shared_read_kernel<false>, 1, kThreads,
                0, y.get());
       }},
      {"a write past shared memory", "write of 4 bytes, 0 bytes past the end of shared `tile`",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, fault ? shared_write_kernel<true> : shared_write_kernel<false>, 1, kThreads,
                0, y.get());
       }},
      {"too little dynamic shared memory", "past the end of shared `dynamic shared memory`",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, dynamic_kernel, 1, kThreads, (kThreads - fault) * sizeof(float), y.get());
       }},
      {"shared memory that nobody wrote", "read of uninitialised shared `tile`, byte 20 of 256",
       [](bool fault) {
         const Array<float> y(3 * kThreads);
         launch(Cuda{},
                fault ? uninitialised_shared_kernel<true> : uninitialised_shared_kernel<false>, 3,
                kThreads, 0, y.get());
       }},
      {"device memory that nobody wrote", "read of uninitialised device memory",
       [](bool fault) {
         const Array<float> x(kThreads), y(kThreads);
         if (!fault) CUDA_CHECK(cudaMemset(x.get(), 0, kThreads * sizeof(float)));
         launch(Cuda{}, copy_kernel, 1, kThreads, 0, x.get(), y.get());
       }},
      {"use after free", "freed device memory", use_after_free},
      {"a pointer of the host", "which is not the device's memory",
       [](bool fault) {
         const std::vector<float> host(kThreads, 1);
         const Array<float> x(kThreads, 1), y(kThreads);
         launch(Cuda{}, copy_kernel, 1, kThreads, 0, fault ? host.data() : x.get(), y.get());
       }},
      {"the host reads device memory", "the host touched device memory, byte 0 of 256", host_read},
      {"a misaligned load of four", "misaligned read of 16 bytes",
       [](bool fault) {
         const Array<float> x(4 * kThreads + 1, 1), y(kThreads);
         launch(Cuda{}, load4_kernel, 1, kThreads, 0, x.get() + fault, y.get());
       }},
      {"a misaligned store of two", "misaligned write of 8 bytes",
       [](bool fault) {
         const Array<float> y(2 * kThreads + 1);
         launch(Cuda{}, store2_kernel, 1, kThreads, 0, y.get() + fault);
       }},
      {"another thread's local variable", "another thread's local variable",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, fault ? local_kernel<true> : local_kernel<false>, 1, kThreads, 0, y.get());
       }},
      {"too much declared shared memory", "a kernel has at most 49152",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, fault ? large_kernel<12289> : large_kernel<12288>, 1, kThreads, 0, y.get());
       }},
      {"too much shared memory in all", "a block has at most 232448",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, large_kernel<12288>, 1, kThreads, (fault ? 180 : 179) * 1024, y.get());
       }},
  };
}

}  // namespace decalign::test
