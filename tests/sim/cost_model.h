// What can be counted of a kernel's cost without a GPU: bytes, transactions, bank conflicts,
// barriers. Off until start_costs(), or from the start if SIM_COST names a file, which then gets
// the counts at the program's end.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "tests/sim/machine.h"
#include "tests/sim/memory.h"

namespace sim {

/// Reads or writes of one line of the source by whole warps.
struct CostLine {
  std::string line;  // "gmm.cu:12 read"
  uint64_t accesses = 0;
  uint64_t used = 0, ideal = 0;  // sectors of 32 bytes, or passes over the banks
  uint64_t ways = 0;             // words that a bank gives at most; 0 in global memory
  double ratio() const { return ideal > 0 ? double(used) / double(ideal) : 1; }
};

/// All launches of one kernel with the same grid, block and shared memory; also of cuBLAS, copies
/// and fills, whose blocks are 0.
///
/// A warp's access is what its lanes do at the same place in the program, the n-th time since they
/// met last. Its global transactions are the distinct sectors of 32 bytes that it touches; ideal is
/// as many as its distinct bytes fill. In shared memory it makes a pass for every 32 lanes (16 with
/// 8 bytes each, 8 with 16), and as many more as a bank has further words to give. Caches are not
/// modelled: `distinct` bytes are those of every sector that a launch touches, counted once.
/// Arithmetic is not counted: nothing instruments it. Flops are cuBLAS's and those that kernels
/// are launched with (note_flops).
struct KernelCost {
  std::string kernel, file;
  uint64_t blocks = 0, threads = 0, shared_bytes = 0;
  uint64_t launches = 0;
  uint64_t bytes_read = 0, bytes_written = 0;  // asked for by the threads
  uint64_t distinct_read = 0, distinct_written = 0;
  uint64_t sectors = 0, ideal_sectors = 0;
  uint64_t shared_accesses = 0, shared_passes = 0, ideal_passes = 0, most_ways = 0;
  uint64_t barriers = 0;  // of the block with the most, summed over the launches
  double flops = -1;      // -1: not known
  std::vector<CostLine>
      scattered;  // where more sectors are used than ideal by a tenth, worst first
  std::vector<CostLine> conflicting;  // where a bank gives more than one word, worst first
};

void start_costs();
void stop_costs();
/// In order of first launch.
std::vector<KernelCost> costs();
/// A line of JSON each.
void print_costs(std::ostream& out);

// What the simulator tells.
extern bool cost_model_on;
enum class Kind : uint8_t;
void cost_launch_start(const Launch& launch);
void cost_launch_end();
void cost_block_end();
/// The lanes of a warp meet.
void cost_warp_step(const Warp& warp);
void cost_barrier();
void cost_access(const Thread& thread, const char* address, size_t bytes, Kind kind, uint32_t pc);
void cost_operation(const std::string& what, uint64_t read, uint64_t written, double flops);

}  // namespace sim
