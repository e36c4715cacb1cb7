#include "autograd/device.h"

#include <cstring>
#include <new>
#include <stdexcept>

#include "autograd/huge_pages.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

struct Allocate {
  size_t bytes;
  std::byte* operator()(const Cpu&) const { return allocate_huge(bytes); }
#ifdef DECALIGN_CUDA
  std::byte* operator()(const Cuda&) const {
    void* memory = nullptr;
    if (bytes > 0 && cudaMalloc(&memory, bytes) != cudaSuccess) {
      (void)cudaGetLastError();
      throw std::bad_alloc();
    }
    return static_cast<std::byte*>(memory);
  }
#endif
};

struct Release {
  std::byte* memory;
  size_t bytes;
  void operator()(const Cpu&) const { free_huge(memory, bytes); }
#ifdef DECALIGN_CUDA
  void operator()(const Cuda&) const { (void)cudaFree(memory); }
#endif
};

enum class Way { upload, download };

#ifdef DECALIGN_CUDA
void require_eager(const Cuda& be) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CUDA_CHECK(cudaStreamIsCapturing(be.stream, &status));
  if (status != cudaStreamCaptureStatusNone)
    throw std::logic_error("Device::upload: not while a step is recorded");
}
#endif

struct Copy {
  const void* source;
  void* target;
  size_t bytes;
  Way way;
  void operator()(const Cpu&) const {
    if (bytes > 0) std::memcpy(target, source, bytes);
  }
#ifdef DECALIGN_CUDA
  void operator()(const Cuda& be) const {
    if (way == Way::upload) require_eager(be);
    if (bytes > 0) CUDA_CHECK(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, be.stream));
    if (way == Way::download) CUDA_CHECK(cudaStreamSynchronize(be.stream));
  }
#endif
};

struct Wait {
  void operator()(const Cpu&) const {}
#ifdef DECALIGN_CUDA
  void operator()(const Cuda& be) const { CUDA_CHECK(cudaStreamSynchronize(be.stream)); }
#endif
};

}  // namespace

std::byte* Device::allocate(size_t bytes) const { return run(Allocate{bytes}); }
void Device::release(std::byte* memory, size_t bytes) const { run(Release{memory, bytes}); }
void Device::upload(const void* source, void* target, size_t bytes) const {
  run(Copy{source, target, bytes, Way::upload});
}
void Device::download(const void* source, void* target, size_t bytes) const {
  run(Copy{source, target, bytes, Way::download});
}
void Device::wait() const { run(Wait{}); }

}  // namespace decalign::inline DECALIGN_REAL
