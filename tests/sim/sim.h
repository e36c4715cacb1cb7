// The simulated device as a kernel sees it: built-in variables, shared memory, launches. The same
// .cu files that nvcc compiles are compiled by the host's compiler against this header.
#pragma once

#ifdef __CUDACC__
#error "sim.h stands in for nvcc"
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define __DEVICE_LAUNCH_PARAMETERS_H__  // keeps the toolkit's threadIdx and the like out
#include <cuda_bf16.h>
#include <cuda_runtime.h>  // types and prototypes: the functions are the simulator's
#undef __shared__
#define __shared__ use_SHARED_of_kernels_cuda_launch_h
#undef __launch_bounds__
#define __launch_bounds__(...)

namespace sim {

// Constant for a thread, so that the compiler may keep them in registers: a thread of a grid never
// sees another's.
[[gnu::const]] uint3 thread_index();
[[gnu::const]] uint3 block_index();
[[gnu::const]] dim3 block_size();
[[gnu::const]] dim3 grid_size();

/// Ends the running kernel with a report of what went wrong and where.
[[noreturn]] void fail(const std::string& what);

/// Where a shared variable of the running block is; one for each declaration in the source.
struct SharedKey {
  uint64_t block = 0;
  void* memory = nullptr;
};
void* shared_variable(SharedKey& key, size_t bytes, size_t alignment, const char* name);

template <class T, class Tag>
T& shared_ref(SharedKey& key, const char* name) {
  return *static_cast<T*>(shared_variable(key, sizeof(T), alignof(T) < 16 ? 16 : alignof(T), name));
}

/// The block's dynamic shared memory.
void* dyn_shared(size_t alignment);

/// A kernel and its arguments.
class KernelCall {
 public:
  virtual ~KernelCall() = default;
  virtual void run() const = 0;
  virtual size_t bytes() const = 0;
};

template <class... P>
class BoundKernel final : public KernelCall {
 public:
  template <class... A>
  explicit BoundKernel(void (*kernel)(P...), A&&... arguments)
      : kernel_(kernel), arguments_(std::forward<A>(arguments)...) {}
  void run() const override { std::apply(kernel_, arguments_); }
  size_t bytes() const override { return sizeof *this; }

 private:
  void (*kernel_)(P...);
  std::tuple<std::decay_t<P>...> arguments_;
};

struct Launch {
  const void* function;
  std::shared_ptr<const KernelCall> call;
  dim3 grid, block;
  size_t shared_bytes;
  double flops = -1;  // -1: nobody said
};
cudaError_t enqueue(Launch launch, cudaStream_t stream);
/// Of the next launch.
void note_flops(double flops);

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, bool cooperative, A&&... arguments) {
  if (cooperative) return cudaErrorNotSupported;
  return enqueue({reinterpret_cast<const void*>(kernel),
                  std::make_shared<BoundKernel<P...>>(kernel, std::forward<A>(arguments)...), grid,
                  block, shared_bytes},
                 stream);
}

}  // namespace sim

#define threadIdx ::sim::thread_index()
#define blockIdx ::sim::block_index()
#define blockDim ::sim::block_size()
#define gridDim ::sim::grid_size()
constexpr int warpSize = 32;

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

#include "tests/sim/atomics.h"
#include "tests/sim/intrinsics.h"
#include "tests/sim/warp_steps.h"
