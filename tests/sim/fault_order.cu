#include "tests/sim/faults.h"

namespace decalign::test {
namespace {

constexpr int kThreads = 64;

template <bool kFault>
__global__ void missing_barrier_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  tile[i] = 0;
  __syncthreads();
  tile[i] = float(i);
  if (!kFault) __syncthreads();
  y[i] = tile[kThreads - 1 - i];
}

// The next round overwrites what the slow threads still read.
template <bool kFault>
__global__ void missing_second_barrier_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  float total = 0;
  for (int round = 0; round < 3; ++round) {
    tile[i] = float(i * round);
    __syncthreads();
    total += tile[kThreads - 1 - i];
    if (!kFault) __syncthreads();
  }
  y[i] = total;
}

template <bool kFault>
__global__ void different_barriers_kernel() {
  if (!kFault || threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

template <bool kFault>
__global__ void barrier_in_branch_kernel() {
  if (!kFault || threadIdx.x < 40) __syncthreads();
}

template <bool kFault>
__global__ void early_exit_kernel(float* y, int n) {
  const int i = int(threadIdx.x);
  if (kFault && i >= n) return;
  __syncthreads();
  if (i < n) y[i] = 1;
}

template <bool kFault>
__global__ void between_warps_kernel(float* y) {
  const int i = int(threadIdx.x);
  y[kFault ? i % 63 : i] = 1;
}

template <bool kFault>
__global__ void between_lanes_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  tile[i] = 0;
  __syncthreads();
  tile[i] = float(i);
  if (!kFault) __syncwarp();
  y[i] = tile[i ^ 1];
}

// A shuffle makes the lanes meet but orders no memory.
template <bool kFault>
__global__ void shuffle_as_barrier_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  tile[i] = 0;
  __syncthreads();
  tile[i] = float(i);
  const float other = __shfl_xor_sync(0xffffffffu, float(i), 1);
  if (!kFault) __syncwarp();
  y[i] = tile[i ^ 2] + other;
}

// Half warps meet apart; the fault is to use the other half's value.
template <bool kFault>
__global__ void half_warp_kernel(float* y) {
  SHARED(float, tile, [kThreads]);
  const int i = int(threadIdx.x);
  const unsigned half = i % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  tile[i] = 0;
  __syncthreads();
  for (int round = 0; round <= i % 32 / 16; ++round) __syncwarp(half);
  tile[i] = float(i);
  __syncwarp(half);
  y[i] = tile[i ^ (kFault ? 16 : 8)];
}

// Two threads share a word; only those that share a byte race.
template <bool kFault>
__global__ void bytes_kernel(unsigned char* y) {
  const int i = int(threadIdx.x);
  y[kFault && i == 33 ? 30 : i] = static_cast<unsigned char>(i);
}

template <bool kFault>
__global__ void between_blocks_kernel(float* y) {
  if (threadIdx.x == 0) y[kFault ? 0 : blockIdx.x] = 1;
}

// Every block reads the first element, which one writes.
template <bool kFault>
__global__ void write_of_what_others_read_kernel(float* x, float* y) {
  const float first = x[0];
  y[blockIdx.x * blockDim.x + threadIdx.x] = first;
  if (blockIdx.x == 1 && threadIdx.x == 0) x[kFault ? 0 : 1] = 2;
}

// The last block to come sums what the others wrote, and makes the ticket ready for the next
// launch.
template <bool kFault>
__global__ void last_block_kernel(const float* x, float* partial, unsigned* ticket, float* y) {
  SHARED(bool, last, );
  const int i = int(threadIdx.x);
  const float offset = y[1];  // read by all, written by the last
  if (i == 0) {
    partial[blockIdx.x] = x[blockIdx.x] + offset;
    if (!kFault) __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || i != 0) return;
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
  y[0] = total;
  if (!kFault) *ticket = 0, y[1] = total;
}

// What every block read the last one writes, after its own threads have read it.
template <bool kFault>
__global__ void last_block_writes_kernel(unsigned* ticket, float* y) {
  SHARED(bool, last, );
  SHARED(float, total, [kThreads]);
  total[threadIdx.x] = y[0];
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  total[threadIdx.x] += y[0];
  if (!kFault) __syncthreads();
  if (threadIdx.x == 5) y[0] = total[5];
}

template <bool kFault>
__global__ void atomic_and_plain_kernel(unsigned* y) {
  atomicAdd(y, 1u);
  if (!kFault) __syncthreads();
  if (threadIdx.x == 0) y[1] = y[0];
}

template <bool kFault>
__global__ void mask_without_caller_kernel(float* y) {
  const unsigned mask = kFault ? 0x7fffffffu : 0xffffffffu;
  y[threadIdx.x] = __shfl_xor_sync(mask, 1.f, 1);
}

template <bool kFault>
__global__ void half_shuffle_kernel(float* y) {
  float v = 1;
  if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(kFault ? 0xffffffffu : 0x0000ffffu, v, 1);
  __syncthreads();
  y[threadIdx.x] = v;
}

template <bool kFault>
__global__ void spin_kernel(unsigned* flag) {
  if (!kFault && blockIdx.x == 0 && threadIdx.x == 1) atomicExch(flag, 1u);
  if (threadIdx.x == 0)
    while (blockIdx.x == 0 && atomicAdd(flag, 0u) == 0) {
    }
}

__global__ void add_kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] + 1; }

void missing_event(bool fault) {
  const Array<float> x(kThreads, 1), y(kThreads, 0), z(kThreads);
  const Stream first, second;
  cudaEvent_t event;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  launch(first, add_kernel, 1, kThreads, 0, x.get(), y.get());
  CUDA_CHECK(cudaEventRecord(event, first.get()));
  if (!fault) CUDA_CHECK(cudaStreamWaitEvent(second.get(), event, 0));
  launch(second, add_kernel, 1, kThreads, 0, y.get(), z.get());
  CUDA_CHECK(cudaEventDestroy(event));
  CUDA_CHECK(cudaDeviceSynchronize());
}

// The next batch goes where the kernel still reads the last one.
void overwritten_batch(bool fault) {
  const Array<float> x(kThreads, 1), y(kThreads);
  const std::vector<float> next(kThreads, 2);
  const Stream compute, upload;
  launch(compute, add_kernel, 1, kThreads, 0, x.get(), y.get());
  if (!fault) CUDA_CHECK(cudaStreamSynchronize(compute.get()));
  CUDA_CHECK(cudaMemcpyAsync(x.get(), next.data(), kThreads * sizeof(float), cudaMemcpyHostToDevice,
                             upload.get()));
  CUDA_CHECK(cudaDeviceSynchronize());
}

void early_download(bool fault) {
  const Array<float> x(kThreads, 1), y(kThreads, 0);
  std::vector<float> got(kThreads);
  const Stream compute, other;
  launch(compute, add_kernel, 1, kThreads, 0, x.get(), y.get());
  const cudaStream_t stream = fault ? other.get() : compute.get();
  CUDA_CHECK(cudaMemcpyAsync(got.data(), y.get(), kThreads * sizeof(float), cudaMemcpyDeviceToHost,
                             stream));
  CUDA_CHECK(cudaDeviceSynchronize());
}

__global__ void read_all_kernel(const float* x, float* y) {
  y[blockIdx.x * kThreads + threadIdx.x] = x[threadIdx.x] + x[kThreads + threadIdx.x];
}

template <bool kFault>
__global__ void change_own_kernel(float* x) {
  const unsigned block = kFault ? 0 : blockIdx.x;
  x[blockIdx.x * kThreads + threadIdx.x] = x[block * kThreads + threadIdx.x] + 1;
}

// What every block has read the blocks then change, each its own, while another stream is busy.
void changed_beside_a_stream(bool fault) {
  const Array<float> x(2 * kThreads, 1), y(2 * kThreads), z(kThreads);
  const Stream compute, other;
  CUDA_CHECK(cudaMemsetAsync(z.get(), 0, kThreads * sizeof(float), other.get()));
  for (int round = 0; round < 2; ++round) {
    launch(compute, read_all_kernel, 2, kThreads, 0, x.get(), y.get());
    launch(compute, fault ? change_own_kernel<true> : change_own_kernel<false>, 2, kThreads, 0,
           x.get());
  }
  CUDA_CHECK(cudaDeviceSynchronize());
}

template <class... P>
void run(void (*faulty)(P...), void (*right)(P...), bool fault, int blocks) {
  const Array<std::remove_pointer_t<P>...> y(2 * kThreads, 0);
  launch(Cuda{}, fault ? faulty : right, unsigned(blocks), kThreads, 0, y.get());
}

}  // namespace

#define TWINS(kernel, blocks) [](bool fault) { run(kernel<true>, kernel<false>, fault, blocks); }

std::vector<Fault> order_faults() {
  return {
      {"a missing barrier", "data race", TWINS(missing_barrier_kernel, 1)},
      {"no barrier before the next round", "data race", TWINS(missing_second_barrier_kernel, 1)},
      {"two barriers for one", "threads of the block wait at different barriers",
       [](bool fault) {
         launch(Cuda{}, fault ? different_barriers_kernel<true> : different_barriers_kernel<false>,
                1, kThreads, 0);
       }},
      {"a barrier that some pass by", "24 of 64 threads have exited",
       [](bool fault) {
         launch(Cuda{}, fault ? barrier_in_branch_kernel<true> : barrier_in_branch_kernel<false>, 1,
                kThreads, 0);
       }},
      {"an exit before a barrier", "1 of 64 threads have exited, the others wait at the barrier",
       [](bool fault) {
         const Array<float> y(kThreads);
         launch(Cuda{}, fault ? early_exit_kernel<true> : early_exit_kernel<false>, 1, kThreads, 0,
                y.get(), kThreads - 1);
       }},
      {"a race between warps", "data race: write of device memory", TWINS(between_warps_kernel, 1)},
      {"a race between lanes", "data race", TWINS(between_lanes_kernel, 1)},
      {"a shuffle for a barrier", "data race", TWINS(shuffle_as_barrier_kernel, 1)},
      {"half a warp does not wait for the other", "data race", TWINS(half_warp_kernel, 1)},
      {"two threads write a byte", "data race", TWINS(bytes_kernel, 1)},
      {"a race between blocks", "data race: write of device memory, byte 0",
       TWINS(between_blocks_kernel, 4)},
      {"a block writes what others read", "data race",
       [](bool fault) {
         const Array<float> x(2, 1), y(4 * kThreads);
         launch(Cuda{},
                fault ? write_of_what_others_read_kernel<true>
                      : write_of_what_others_read_kernel<false>,
                4, kThreads, 0, x.get(), y.get());
       }},
      {"no fence before the ticket", "data race: read of device memory",
       [](bool fault) {
         const Array<float> x(5, 1), partial(5, 0), y(2, 0);
         const Array<unsigned> ticket(1, 0);
         for (int repeat = 0; repeat < 2; ++repeat)
           launch(Cuda{}, fault ? last_block_kernel<true> : last_block_kernel<false>, 5, kThreads,
                  0, x.get(), partial.get(), ticket.get(), y.get());
       }},
      {"a last block that does not wait for itself", "data race: ",
       [](bool fault) {
         const Array<float> y(1, 0);
         const Array<unsigned> ticket(1, 0);
         launch(Cuda{}, fault ? last_block_writes_kernel<true> : last_block_writes_kernel<false>, 5,
                kThreads, 0, ticket.get(), y.get());
       }},
      {"a plain read of what others change by atomics", "data race",
       TWINS(atomic_and_plain_kernel, 1)},
      {"a mask without the caller", "the mask leaves out the calling lane",
       TWINS(mask_without_caller_kernel, 1)},
      {"a shuffle that half the warp does not reach", "wait in __shfl_xor_sync mask ffffffff",
       TWINS(half_shuffle_kernel, 1)},
      {"a wait for nobody", "livelock", TWINS(spin_kernel, 1)},
      {"a stream that does not wait for the event", "which no event or wait orders before this",
       missing_event},
      {"an upload over what is being read", "which no event or wait orders before this",
       overwritten_batch},
      {"a race between blocks beside another stream", "data race: ", changed_beside_a_stream},
      {"a download on another stream", "which no event or wait orders before this", early_download},
  };
}

}  // namespace decalign::test
