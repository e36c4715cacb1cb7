// Device: a cheap handle to a backend, chosen at run time, and to its memory.
#pragma once

#include <utility>
#include <variant>
#include <vector>

#include "kernels/backend.h"
#ifdef DECALIGN_CUDA
#include "kernels/cuda/backend.h"
#endif

namespace decalign::inline DECALIGN_REAL {

class Device {
 public:
#ifdef DECALIGN_CUDA
  using Backend = std::variant<Cpu, Cuda>;
#else
  using Backend = std::variant<Cpu>;
#endif
  Device(Backend backend = Cpu{}) : backend_(backend) {}

  /// Calls f(backend). The only place where run time chooses a backend.
  template <class F>
  decltype(auto) run(F&& f) const {
    return std::visit(std::forward<F>(f), backend_);
  }

  /// True if kernels read the host's memory.
  bool on_host() const { return std::holds_alternative<Cpu>(backend_); }

  /// The CUDA backend, null if it is another.
  const Cuda* cuda() const {
#ifdef DECALIGN_CUDA
    return std::get_if<Cuda>(&backend_);
#else
    return nullptr;
#endif
  }

  /// Uninitialised memory of the device, 64-byte aligned. Throws std::bad_alloc, also while a step
  /// is recorded.
  std::byte* allocate(size_t bytes) const;
  void release(std::byte* memory, size_t bytes) const;
  /// Bytes that allocate() may still give; of the host, whatever the system has: SIZE_MAX.
  size_t free_memory() const;

  /// Host to device, in the stream's order; `source` may be reused at once. Throws std::logic_error
  /// while a step is recorded, which would read `source` again at every replay.
  void upload(const void* source, void* target, size_t bytes) const;
  /// While a step is recorded, the place of a copy of `source` among the recording's lists, filled
  /// before every replay; null if none is, or on the host.
  const void* recorded_copy(const void* source, size_t bytes) const;
  /// Device to host; waits for the stream.
  void download(const void* source, void* target, size_t bytes) const;
  /// Waits for everything that was queued.
  void wait() const;

  /// The host's copy of an array.
  template <class T>
  std::vector<std::remove_const_t<T>> read(std::span<T> array) const {
    std::vector<std::remove_const_t<T>> copy(array.size());
    download(array.data(), copy.data(), array.size_bytes());
    return copy;
  }
  real read(In array, size_t i) const {
    real value;
    download(&array[i], &value, sizeof value);
    return value;
  }

 private:
  Backend backend_;
};

}  // namespace decalign::inline DECALIGN_REAL
