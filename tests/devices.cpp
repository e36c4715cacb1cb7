#include "tests/devices.h"

#include <cstdio>
#include <cstdlib>

#include "autograd/cuda_device.h"

namespace decalign::inline DECALIGN_REAL::test {
namespace {

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value && *value == '1';
}

// Ends the program, in one line, where a GPU is required and missing.
bool has_cuda() {
  static const bool found = [] {
    const std::string missing = why_no_cuda();
    if (!missing.empty() && is_set("DECALIGN_REQUIRE_CUDA")) {
      std::fprintf(stderr, "DECALIGN_REQUIRE_CUDA is set: %s\n", missing.c_str());
      std::exit(1);
    }
    return missing.empty();
  }();
  return found;
}

std::vector<Device> find_devices() {
  std::vector<Device> found;
#ifndef DECALIGN_SIM
  if (!has_cuda() || !is_set("DECALIGN_CUDA_ONLY")) found = {Device(Cpu{1}), Device(Cpu{2})};
#endif
#ifdef DECALIGN_CUDA
  if (has_cuda()) {
    static const CudaDevice& cuda = *new CudaDevice;  // lives as long as the program
    size_t times = 2;                                 // the second time for the same bits
#ifdef DECALIGN_SIM
    if (sizeof(real) == 8) times = 1;
#endif
    found.insert(found.end(), times, cuda.device());
  }
#endif
  return found;
}

}  // namespace

const std::vector<Device>& devices() {
  static const std::vector<Device> all = find_devices();
  return all;
}

const Device* gpu() {
  for (const Device& device : devices())
    if (!device.on_host()) return &device;
  return nullptr;
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
