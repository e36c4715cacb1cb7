// The CUDA backend: the caller's stream, cuBLAS handle and memory for index lists; errors.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace decalign {

/// A failed call of the CUDA runtime or of cuBLAS: the call, its status, file and line.
struct cuda_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw cuda_error(std::string(file) + ":" + std::to_string(line) + ": " + call + ": " +
                   cudaGetErrorString(status));
}

inline void check_cuda(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw cuda_error(std::string(file) + ":" + std::to_string(line) + ": " + call +
                   ": cuBLAS status " + std::to_string(int(status)));
}

#define CUDA_CHECK(call) ::decalign::check_cuda((call), #call, __FILE__, __LINE__)

/// Where index lists (rows, key ranges, row copies) go on their way to a kernel: device memory of
/// the caller. Used by one stream.
///
/// Eager: a ring; a list is copied when its kernel is queued, and the ring comes round again in the
/// stream's order. Recording (a step captured as a graph): every list keeps its place, equal lists
/// share one, and nothing is copied until upload().
class Lists {
 public:
  /// `device`: `bytes` of device memory, 256-byte aligned.
  Lists(std::byte* device, size_t bytes) : device_(device), bytes_(bytes) {}

  /// The device copy of `source`, 16-byte aligned. Throws std::length_error if it cannot fit.
  const void* stage(cudaStream_t stream, const void* source, size_t bytes);

  /// From here on lists are recorded, from the start of the memory.
  void record();
  /// Copies the recorded lists; to be called after the capture, before the first replay.
  void upload(cudaStream_t stream);
  size_t used() const { return used_; }

 private:
  std::byte* device_;
  size_t bytes_, used_ = 0;
  bool recording_ = false;
  std::vector<std::byte> shadow_;  // recording: what the device memory is to hold
  struct Entry {
    size_t offset, bytes;
  };
  std::vector<Entry> entries_;
};

inline namespace DECALIGN_REAL {

/// A stream of a device. Nothing here is owned.
struct Cuda {
  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
  Lists* lists = nullptr;
  int multiprocessors = 132;
};

/// The device copy of a host list, for kernels queued next on be.stream.
template <class T>
const T* device_list(const Cuda& be, std::span<const T> list) {
  if (list.empty()) return nullptr;
  expect(be.lists != nullptr, "Cuda: the backend has no memory for lists");
  return static_cast<const T*>(be.lists->stage(be.stream, list.data(), list.size_bytes()));
}

}  // namespace DECALIGN_REAL
}  // namespace decalign
