#include "tests/devices.h"

#include <cstdlib>
#include <stdexcept>

#include "autograd/cuda_device.h"

namespace decalign::inline DECALIGN_REAL::test {
namespace {

#ifdef DECALIGN_CUDA
bool has_cuda() {
  static const bool found = [] {
    const bool ok = why_no_cuda().empty();
    const char* required = std::getenv("DECALIGN_REQUIRE_CUDA");
    if (!ok && required && *required == '1')
      throw std::runtime_error("DECALIGN_REQUIRE_CUDA is set and there is no GPU");
    return ok;
  }();
  return found;
}
#endif

std::vector<Device> find_devices() {
  std::vector<Device> found;
#ifndef DECALIGN_SIM
  found = {Device(Cpu{1}), Device(Cpu{2})};
#endif
#ifdef DECALIGN_CUDA
  if (has_cuda()) {
    static const CudaDevice& cuda = *new CudaDevice;  // lives as long as the program
    found.insert(found.end(), 2, cuda.device());
  }
#endif
  return found;
}

}  // namespace

const std::vector<Device>& devices() {
  static const std::vector<Device> all = find_devices();
  return all;
}

void wait() {
  for (const Device& device : devices()) device.wait();
}

void* allocate_shared(size_t bytes) {
#ifdef DECALIGN_CUDA
  if (has_cuda()) {
    void* memory = nullptr;
    CUDA_CHECK(cudaMallocManaged(&memory, bytes > 0 ? bytes : 1));
    return memory;
  }
#endif
  return allocate_huge(bytes);
}

void free_shared(void* memory, size_t bytes) {
#ifdef DECALIGN_CUDA
  if (has_cuda()) {
    (void)cudaFree(memory);
    return;
  }
#endif
  free_huge(static_cast<std::byte*>(memory), bytes);
}

}  // namespace decalign::inline DECALIGN_REAL::test
