#include "autograd/device.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>

#include "autograd/huge_pages.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

#ifdef DECALIGN_CUDA
bool is_recording(const Cuda& be) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CUDA_CHECK(cudaStreamIsCapturing(be.stream, &status));
  return status != cudaStreamCaptureStatusNone;
}
#endif

struct Allocate {
  size_t bytes;
  std::byte* operator()(const Cpu&) const { return allocate_huge(bytes); }
#ifdef DECALIGN_CUDA
  std::byte* operator()(const Cuda& be) const {
    void* memory = nullptr;
    if (is_recording(be)) throw std::bad_alloc();
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

struct FreeMemory {
  size_t operator()(const Cpu&) const { return SIZE_MAX; }
#ifdef DECALIGN_CUDA
  size_t operator()(const Cuda&) const {
    size_t free = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return free;
  }
#endif
};

enum class Way { upload, download };

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
    if (way == Way::upload && is_recording(be))
      throw std::logic_error("Device::upload: not while a step is recorded");
    if (bytes > 0) CUDA_CHECK(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, be.stream));
    if (way == Way::download) CUDA_CHECK(cudaStreamSynchronize(be.stream));
  }
#endif
};

struct RecordedCopy {
  const void* source;
  size_t bytes;
  const void* operator()(const Cpu&) const { return nullptr; }
#ifdef DECALIGN_CUDA
  const void* operator()(const Cuda& be) const {
    if (bytes == 0 || !is_recording(be)) return nullptr;
    return be.lists->stage(be.stream, source, bytes);
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
size_t Device::free_memory() const { return run(FreeMemory{}); }
void Device::upload(const void* source, void* target, size_t bytes) const {
  run(Copy{source, target, bytes, Way::upload});
}
void Device::download(const void* source, void* target, size_t bytes) const {
  run(Copy{source, target, bytes, Way::download});
}
const void* Device::recorded_copy(const void* source, size_t bytes) const {
  return run(RecordedCopy{source, bytes});
}
void Device::wait() const { run(Wait{}); }

}  // namespace decalign::inline DECALIGN_REAL
