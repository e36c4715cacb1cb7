// Keeps the host out of the device's own memory, which on a GPU it cannot reach.
#pragma once

#include <string>

namespace sim {

/// Every function of the runtime holds one. Outside of them the memory of cudaMalloc is protected,
/// and the host's access to it is caught and remembered.
class RuntimeLock {
 public:
  RuntimeLock();
  ~RuntimeLock();
  RuntimeLock(const RuntimeLock&) = delete;
};

/// Makes the memory of cudaMalloc accessible until the outermost lock is gone.
void expose_device_memory();

/// What the host touched since the last call, or "".
std::string host_fault();

}  // namespace sim
