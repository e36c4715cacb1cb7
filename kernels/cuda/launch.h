// How kernels are launched and shared memory is declared: the one seam between a GPU and the
// simulated device. Every .cu file includes this and no header of CUDA's own.
#pragma once

#include "kernels/cuda/backend.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>

/// __shared__ T name dims, e.g. SHARED(real, tile, [16][17]).
#define SHARED(T, name, dims) __shared__ T name dims
/// The launch's dynamic shared memory, 128-byte aligned; once in a kernel.
#define DYNAMIC_SHARED(T, name)                                             \
  extern __shared__ __align__(128) unsigned char decalign_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(decalign_dynamic_shared)
#else
#include "sim.h"  // tests/sim: on the include path of the simulated build alone

#define SHARED(T, name, dims)                      \
  static thread_local ::sim::SharedKey name##_key; \
  struct name##_tag;                               \
  auto& name = ::sim::shared_ref<T dims, name##_tag>(name##_key, #name)
#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::sim::dyn_shared(128))
#endif

namespace decalign::inline DECALIGN_REAL {

/// Queues kernel(args...) with `shared` bytes of dynamic shared memory. Throws cuda_error. An empty
/// grid queues nothing.
template <class... P, class... A>
void launch(const Cuda& be, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
            A&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > 48 * 1024)
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
#ifdef __CUDACC__
  kernel<<<grid, block, shared, be.stream>>>(static_cast<P>(std::forward<A>(args))...);
  CUDA_CHECK(cudaGetLastError());
#else
  CUDA_CHECK(
      ::sim::launch(kernel, grid, block, shared, be.stream, false, std::forward<A>(args)...));
#endif
}

/// How many operations the kernel launched next does, for the simulated device's cost model: two in
/// a multiply-add, and kDouble times as many if they are double's, which run at half the rate.
inline void note_flops([[maybe_unused]] double flops) {
#ifndef __CUDACC__
  ::sim::note_flops(flops);
#endif
}
inline constexpr double kDouble = 2;

/// A span's memory; null if it is empty, so that a kernel can ask.
template <class T>
T* pointer(std::span<T> s) {
  return s.empty() ? nullptr : s.data();
}

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

/// A short list that travels in the kernel's parameters, by value.
template <class T, int N>
struct ParameterList {
  int count = 0;
  T item[N];
};

/// Gives `list` to `f` in parts of at most N entries.
template <int N, class T, class Source, class Convert, class F>
void in_parts(std::span<const Source> list, Convert&& convert, F&& f) {
  for (size_t begin = 0; begin < list.size(); begin += N) {
    ParameterList<T, N> part;
    for (size_t i = begin; i < list.size() && i < begin + N; ++i)
      part.item[part.count++] = convert(list[i]);
    f(part);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
