// The CUDA backend: the caller's stream, cuBLAS handle and memory for index lists; errors.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <utility>
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
/// As a rule a ring: a list is copied when its kernel is queued, and the ring comes round again in
/// the stream's order. While a step is recorded (captured as a graph) every list gets a place of
/// its own in memory of the recording's, equal lists share one, and nothing is copied until the
/// recording's upload().
class Lists {
 public:
  /// The lists of a recorded step. Its memory must live as long as the graph.
  struct Recording {
    std::byte* device = nullptr;  ///< 256-byte aligned
    size_t bytes = 0;
    std::vector<std::byte> contents;                 ///< what the device memory is to hold
    std::vector<std::pair<size_t, size_t>> entries;  ///< offset and size
    /// After the capture, before the first replay.
    void upload(cudaStream_t stream) const;
  };

  /// `device`: `bytes` of device memory, 256-byte aligned.
  Lists(std::byte* device, size_t bytes) : device_(device), bytes_(bytes) {}

  /// The device copy of `source`, 16-byte aligned. Throws std::length_error if it cannot fit.
  const void* stage(cudaStream_t stream, const void* source, size_t bytes);

  /// From here on lists go to `recording`; null: to the ring again.
  void record(Recording* recording) { recording_ = recording; }
  /// Bytes staged so far: as much as a recording of the same calls needs at most.
  size_t staged() const { return staged_; }

 private:
  std::byte* device_;
  size_t bytes_, used_ = 0, staged_ = 0;
  Recording* recording_ = nullptr;
};

inline namespace DECALIGN_REAL {

/// Blocks of a kernel count here who was last, and the last one adds up what all of them left.
inline constexpr int kCounters = 4096;

/// A stream of a device. Nothing here is owned.
struct Cuda {
  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
  Lists* lists = nullptr;
  /// [kCounters] zeros in device memory, which every kernel leaves zero.
  unsigned* counters = nullptr;
  int multiprocessors = 132;
  Precision precision = Precision::fp32;
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
