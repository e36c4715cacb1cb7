// The access checker. Kernels are compiled with -fsanitize=thread but without its library: the
// compiler calls __tsan_read4(address) and the like before every access, and those calls land here.
// It reports accesses outside of allocations, reads of bytes that nobody wrote, misaligned vectors,
// and two accesses of a word of which one is a write and that nothing orders: by barriers and steps
// of a warp within a block, fences and atomics between blocks, streams and events between kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/machine.h"
#include "tests/sim/memory.h"

namespace sim {

enum class Kind : uint8_t { read, write, atomic };

void check_launch_start();
void check_block_start(Block& block);
/// After a barrier.
void check_interval_start(Block& block);

/// An operation of a stream starts: `position` in stream number `stream`, after the first
/// before[s] operations of every stream s. A copy is one interval, a kernel one per block and
/// barrier.
using Clock = std::vector<uint64_t>;
struct Operation {
  std::string what;
  const void* function = nullptr;  // a kernel's
  int stream = 0;
  uint64_t position = 0;
  Clock before;
};
void check_operation_start(const Operation& operation);
/// Everything so far is ordered before everything that comes.
void check_all_ordered();

/// A copy or cuBLAS, named `running`, accesses the device's memory. Throws Error.
void check_operation(const void* begin, size_t bytes, Kind kind, const std::string& running);

// order.cpp

/// Whether `access`, of another interval than the running thread's, comes before it for sure.
bool ordered_before_thread(const Access& access, const Thread& thread);
/// Whether it comes before the running copy.
bool ordered_before_operation(const Access& access);
/// Whether it is that of an earlier operation, which comes before the running one.
bool of_ordered_operation(const Access& access);
uint32_t running_interval();
/// "thread 3 of block 2 at file.cu:12", with the kernel's name if it is another.
std::string describe_access(const Access& access);
void note_atomic(Thread& thread, const void* address);
/// Intervals up to this one come before the running operation.
extern uint32_t all_ordered_until;

}  // namespace sim
