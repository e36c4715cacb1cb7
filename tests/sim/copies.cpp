// Allocation, copies and fills of the CUDA runtime.
#include <algorithm>
#include <cstring>

#include "tests/sim/control.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/memory.h"
#include "tests/sim/streams.h"

namespace sim {
namespace {

cudaError_t new_memory(void** memory, size_t bytes, Owner owner, const char* call) {
  const RuntimeLock lock;
  *memory = nullptr;
  if (cudaError_t status = forbid_in_capture(call)) return status;
  ++count().allocations;
  if (bytes == 0) return cudaSuccess;
  *memory = allocate(bytes, owner);
  return *memory ? cudaSuccess : set_error(cudaErrorMemoryAllocation);
}

cudaError_t free_memory(void* memory, bool pinned, const char* call) {
  const RuntimeLock lock;
  if (!memory) return cudaSuccess;
  if (cudaError_t status = forbid_in_capture(call)) return status;
  ++count().frees;
  // CUDA's waits too; an error of the work it waited for is for others to report.
  (void)wait_for_device();
  const Allocation* a = find_allocation(memory);
  if (!a || a->begin != memory)
    return set_error(cudaErrorInvalidValue,
                     std::string(call) + ": freed before, or never allocated");
  if ((a->owner == Owner::pinned) != pinned)
    return set_error(cudaErrorInvalidValue, std::string(call) + ": of the other kind of memory");
  deallocate(memory);
  return cudaSuccess;
}

// What is wrong with [p, p + bytes) as a side of a copy of the device, or "".
std::string range_fault(const void* p, size_t bytes) {
  if (!in_region(p)) return "";
  const Allocation* a = find_allocation(p);
  if (!a) return describe_address(p);
  const size_t room = size_t(a->begin + a->bytes - static_cast<const char*>(p));
  return bytes <= room ? "" : std::to_string(bytes) + " bytes from " + describe_address(p);
}

bool of_device(const void* p) {
  const Allocation* a = find_allocation(p);
  return a && a->owner == Owner::device;
}

std::string direction_fault(const void* target, const void* source, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return "";
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device && !in_region(target)) return "the target is not the device's memory";
  if (from_device && !in_region(source)) return "the source is not the device's memory";
  if (!to_device && of_device(target)) return "the target is the device's memory";
  if (!from_device && of_device(source)) return "the source is the device's memory";
  return "";
}

void run_copy(void* target, const void* source, size_t bytes, const std::string& what) {
  if (in_region(source)) {
    check_operation(source, bytes, Kind::read, what);
    const char* const from = static_cast<const char*>(source);
    const size_t missing = first_unwritten(from, bytes);
    if (missing < bytes && !of_device(target) && execution())
      throw Error("sim: " + what + " of uninitialised " + describe_address(from + missing));
  }
  if (in_region(target)) {
    check_operation(target, bytes, Kind::write, what);
    if (in_region(source))
      copy_written(static_cast<char*>(target), static_cast<const char*>(source), bytes);
    else
      set_written(static_cast<char*>(target), bytes);
  }
  std::memmove(target, source, bytes);
  cost_operation(what, bytes, bytes, 0);
}

cudaError_t copy(void* target, const void* source, size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t handle, bool wait) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  for (const std::string& fault : {range_fault(target, bytes), range_fault(source, bytes),
                                   direction_fault(target, source, kind)})
    if (!fault.empty()) return set_error(cudaErrorInvalidValue, "a copy: " + fault);
  if (wait)
    if (cudaError_t status = forbid_in_capture("cudaMemcpy")) return status;
  const bool up = !in_region(source) || !of_device(source);
  const bool down = !in_region(target) || !of_device(target);
  const std::string what = up && down ? "copy"
                           : up       ? "copy to the device"
                           : down     ? "copy to the host"
                                      : "copy on the device";
  Work work{Work::Kind::copy, {}, what};
  if (!stream->capture) {
    ++(up ? count().uploads : down ? count().downloads : count().device_copies);
    // From and to ordinary memory of the host CUDA waits: the source may change after the call.
    if (up && !in_region(source)) {
      const auto staged = std::make_shared<std::vector<char>>(
          static_cast<const char*>(source), static_cast<const char*>(source) + bytes);
      work.run = [=] { run_copy(target, staged->data(), bytes, what); };
    }
    wait |= !in_region(target);
  }
  if (!work.run) work.run = [=] { run_copy(target, source, bytes, what); };
  if (cudaError_t status = submit(handle, std::move(work))) return status;
  if (!wait) return cudaSuccess;
  ++count().synchronisations;
  return wait_for_stream(stream);
}

cudaError_t fill(void* target, int value, size_t bytes, cudaStream_t handle, bool wait) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  const std::string fault = in_region(target) ? range_fault(target, bytes) : "memory of the host";
  if (!fault.empty()) return set_error(cudaErrorInvalidValue, "cudaMemset: " + fault);
  if (wait)
    if (cudaError_t status = forbid_in_capture("cudaMemset")) return status;
  if (!stream->capture) ++count().memsets;
  return submit(handle, {Work::Kind::memset,
                         [=] {
                           check_operation(target, bytes, Kind::write, "cudaMemset");
                           set_written(static_cast<char*>(target), bytes);
                           std::memset(target, value, bytes);
                           cost_operation("cudaMemset", 0, bytes, 0);
                         },
                         "cudaMemset"});
}

}  // namespace
}  // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return new_memory(memory, bytes, Owner::device, "cudaMalloc");
}
// The device's memory, which the host may write at any time.
cudaError_t cudaMallocManaged(void** memory, size_t bytes, unsigned) {
  return new_memory(memory, bytes, Owner::managed, "cudaMallocManaged");
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return new_memory(memory, bytes, Owner::pinned, "cudaMallocHost");
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return new_memory(memory, bytes, Owner::pinned, "cudaHostAlloc");
}
cudaError_t cudaFree(void* memory) { return free_memory(memory, false, "cudaFree"); }
cudaError_t cudaFreeHost(void* memory) { return free_memory(memory, true, "cudaFreeHost"); }

cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes, cudaMemcpyKind kind) {
  return copy(target, source, bytes, kind, nullptr, true);
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return copy(target, source, bytes, kind, stream, false);
}
cudaError_t cudaMemset(void* target, int value, size_t bytes) {
  return fill(target, value, bytes, nullptr, true);
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
  return fill(target, value, bytes, stream, false);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const RuntimeLock lock;
  *total = kDeviceBytes;
  *free = kDeviceBytes - std::min(kDeviceBytes, allocated_bytes());
  return cudaSuccess;
}
}
