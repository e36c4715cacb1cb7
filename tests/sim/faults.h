// Faults for the simulated device to find, each beside a twin without it.
#pragma once

#include <vector>

#include "kernels/cuda/launch.h"

namespace decalign::test {

struct Fault {
  const char* name;
  const char* report;       // what the device's error must say
  void (*run)(bool fault);  // false: the twin
};

std::vector<Fault> memory_faults();
std::vector<Fault> order_faults();
std::vector<Fault> runtime_faults();

/// Kernels whose cost is known, see test_sim.cpp.
void run_known_costs();

/// `count` kernels that each add 1 to x[0, 64).
void queue_adds(const Cuda& be, float* x, int count);

/// Device memory with values, or without.
template <class T>
class Array {
 public:
  explicit Array(size_t n) : n_(n) {
    void* memory = nullptr;
    CUDA_CHECK(cudaMalloc(&memory, n * sizeof(T)));
    memory_ = static_cast<T*>(memory);
  }
  Array(size_t n, T value) : Array(n) {
    const std::vector<T> values(n, value);
    CUDA_CHECK(cudaMemcpy(memory_, values.data(), n * sizeof(T), cudaMemcpyHostToDevice));
  }
  Array(const Array&) = delete;
  ~Array() { (void)cudaFree(memory_); }
  T* get() const { return memory_; }
  void download() const {
    std::vector<T> values(n_);
    CUDA_CHECK(cudaMemcpy(values.data(), memory_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
  }

 private:
  size_t n_;
  T* memory_ = nullptr;
};

class Stream {
 public:
  Stream() { CUDA_CHECK(cudaStreamCreateWithFlags(&backend_.stream, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  ~Stream() { (void)cudaStreamDestroy(backend_.stream); }
  operator const Cuda&() const { return backend_; }
  cudaStream_t get() const { return backend_.stream; }

 private:
  Cuda backend_;
};

}  // namespace decalign::test
