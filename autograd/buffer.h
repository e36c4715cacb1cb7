// An array in a device's memory, owned.
#pragma once

#include <utility>

#include "autograd/device.h"

namespace decalign::inline DECALIGN_REAL {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  /// Uninitialised.
  Buffer(const Device& device, size_t n)
      : device_(device), data_(reinterpret_cast<T*>(device.allocate(n * sizeof(T)))), size_(n) {}
  /// A copy of host values.
  Buffer(const Device& device, std::span<const T> values) : Buffer(device, values.size()) {
    upload(values);
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() {
    if (data_) device_.release(reinterpret_cast<std::byte*>(data_), size_ * sizeof(T));
  }

  std::span<T> span() const { return {data_, size_}; }
  T* data() const { return data_; }
  size_t size() const { return size_; }
  void upload(std::span<const T> values) {
    device_.upload(values.data(), data_, values.size_bytes());
  }
  std::vector<T> read() const { return device_.read(span()); }

 private:
  Device device_;
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace decalign::inline DECALIGN_REAL
