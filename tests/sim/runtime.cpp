// The rest of the CUDA runtime: launches, errors, properties of the device.
#include <cstring>
#include <map>

#include "tests/sim/control.h"
#include "tests/sim/memory.h"
#include "tests/sim/streams.h"
#include "tests/sim/symbols.h"

namespace sim {
namespace {

constexpr size_t kDefaultDynamic = 48 * 1024, kMostDynamic = 227 * 1024;

cudaError_t last_error = cudaSuccess;
std::map<cudaError_t, std::string>& reasons() {
  static auto* all = new std::map<cudaError_t, std::string>;
  return *all;
}
std::map<const void*, size_t>& dynamic_limits() {
  static auto* all = new std::map<const void*, size_t>;
  return *all;
}

const char* error_name(cudaError_t code) {
  switch (code) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid value";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration";
    case cudaErrorInvalidDevice:
      return "invalid device";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "not ready";
    case cudaErrorNotSupported:
      return "not supported";
    case cudaErrorLaunchFailure:
      return "launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "not permitted when a stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "the capture was invalidated by an earlier error";
    case cudaErrorStreamCaptureUnjoined:
      return "the capture was not joined";
    default:
      return "an error of the simulated device";
  }
}

std::string launch_fault(const Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z) return "an empty grid or block";
  if (uint64_t(b.x) * b.y * b.z > 1024 || b.z > 64) return "more than 1024 threads in a block";
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return "too many blocks";
  return "";
}

}  // namespace

cudaError_t set_error(cudaError_t code, const std::string& why) {
  if (code == cudaSuccess) return code;
  last_error = code;
  if (!why.empty()) reasons()[code] = why;
  return code;
}

namespace {
thread_local double noted_flops = -1;
}
void note_flops(double flops) { noted_flops = flops; }

cudaError_t enqueue(Launch launch, cudaStream_t handle) {
  const RuntimeLock lock;
  launch.flops = std::exchange(noted_flops, -1);
  const std::string fault = launch_fault(launch);
  if (!fault.empty()) return set_error(cudaErrorInvalidConfiguration, fault);
  const auto limit = dynamic_limits().find(launch.function);
  if (launch.shared_bytes > (limit == dynamic_limits().end() ? kDefaultDynamic : limit->second))
    return set_error(cudaErrorInvalidValue, "more dynamic shared memory than the kernel may have");
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (!stream->capture) ++count().kernels;
  return submit(handle, {Work::Kind::kernel, [launch] { run_grid(launch); }, "", launch.function});
}

}  // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const RuntimeLock lock;
  return submit(stream, {Work::Kind::host, [=] { function(data); }, "host function"});
}

cudaError_t cudaGetLastError() {
  const RuntimeLock lock;
  const cudaError_t code = last_error;
  last_error = cudaSuccess;
  return code;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

// With the reason of the last such error.
const char* cudaGetErrorString(cudaError_t code) {
  const RuntimeLock lock;
  static auto* texts = new std::map<cudaError_t, std::string>;
  const auto reason = reasons().find(code);
  std::string& text = (*texts)[code];
  text = error_name(code) + (reason == reasons().end() ? "" : ": " + reason->second);
  return text.c_str();
}
const char* cudaGetErrorName(cudaError_t code) { return error_name(code); }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : set_error(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

// Those of an H100, as far as somebody asks.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 132;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(kMostDynamic);
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrConcurrentManagedAccess:
      *value = 1;
      return cudaSuccess;
    default:
      return set_error(cudaErrorNotSupported, "an attribute that is not simulated");
  }
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "simulated device");
  properties->totalGlobalMem = kDeviceBytes;
  properties->major = 9;
  properties->multiProcessorCount = 132;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const RuntimeLock lock;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;  // a hint
  if (value < 0 || size_t(value) > kMostDynamic)
    return set_error(cudaErrorInvalidValue, "more dynamic shared memory than a block has");
  dynamic_limits()[function] = size_t(value);
  return cudaSuccess;
}
}
