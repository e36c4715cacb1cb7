// A GPU of this machine as a Device: its stream, cuBLAS handle and memory for index lists.
#pragma once

#include <memory>
#include <string>

#include "autograd/device.h"

namespace decalign {

/// A device that was asked for and is not there.
struct device_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace decalign

namespace decalign::inline DECALIGN_REAL {

/// Owns what a Cuda backend refers to; it must outlive every Device taken from it.
class CudaDevice {
 public:
  /// Opens GPU 0. Throws cuda_error.
  CudaDevice();
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  Device device(Precision = Precision::fp32) const;
  /// Name, memory and compute capability in one line.
  std::string description() const;

 private:
  struct Handles;
  std::unique_ptr<Handles> handles_;
};

/// A device with what it refers to.
struct OpenDevice {
  Device device;
  std::string description;
  std::unique_ptr<CudaDevice> cuda;  // null for the host
};

/// `name`: cpu, cuda, or auto: the GPU if there is one. `threads` of the CPU, 0: all. `precision`
/// of a GPU's products: fp32, tf32 or bf16; a CPU's description says that it leaves it out. Throws
/// device_error, one line, where cuda was asked for and cannot be had.
OpenDevice open_device(const std::string& name, int threads, const std::string& precision = "fp32");

/// Empty if there is a GPU that this program can use, else why not, in one line.
std::string why_no_cuda();

}  // namespace decalign::inline DECALIGN_REAL
