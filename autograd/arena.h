// Bump allocation for one training step: the same requests give the same addresses every step.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "autograd/device.h"

namespace decalign::inline DECALIGN_REAL {

class Arena {
 public:
  /// Memory of `device`.
  explicit Arena(Device device = {}) : device_(device) {}

  /// Uninitialised memory, 64-byte aligned, valid until reset().
  std::span<std::byte> bytes(size_t n);

  template <class T>
  std::span<T> take(int64_t n) {
    const auto memory = bytes(size_t(n) * sizeof(T));
    return {reinterpret_cast<T*>(memory.data()), size_t(n)};
  }

  /// What is left of the current block: the next requests, while they fit, come from here.
  std::span<std::byte> rest() const;

  /// Forgets everything. A step that needed several blocks gets one block of the total size from
  /// now on.
  void reset();

  size_t capacity() const;  ///< bytes held
  /// Changes when memory moves: while it stays, the same requests give the same addresses.
  uint64_t generation() const { return generation_; }

 private:
  struct Free {
    Device device;
    size_t size = 0;
    void operator()(std::byte* p) const;
  };
  struct Block {
    std::unique_ptr<std::byte[], Free> memory;
    size_t size = 0, used = 0;
  };
  Block make_block(size_t size);
  Device device_;
  std::vector<Block> blocks_;
  uint64_t generation_ = 0;
};

}  // namespace decalign::inline DECALIGN_REAL
