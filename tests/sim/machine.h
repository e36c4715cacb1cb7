// What runs: the threads, warps and the block of the running grid. Blocks run one after another in
// random order; the threads of a block take turns on one thread of the host.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/context_switch.h"
#include "tests/sim/lane_clocks.h"
#include "tests/sim/sim.h"

namespace sim {

/// What a thread had done or knew of when it fenced: what it hands on by its next atomics.
struct Fence {
  uint32_t interval = 0;  // 0: it has not fenced
  int warp = 0;
  uint32_t known[32];
};

struct Warp;

struct Thread {
  Context context;
  char* stack = nullptr;
  bool prepared = false;
  Warp* warp = nullptr;
  uint3 index{};
  int rank = 0, lane = 0;  // in the block, in the warp
  enum class State : uint8_t { ready, at_barrier, in_warp_step, done } state = State::done;
  // What it waits in.
  const char* waits_in = "";
  Site site{};
  uint32_t mask = 0;
  void* payload = nullptr;
  Combine combine = nullptr;
  bool orders_memory = false;
  int vote = 0;
  Fence fence;
};

struct Warp {
  int index = 0;
  uint32_t present = 0, exited = 0, waiting = 0;
  Thread* lane[32] = {};
  LaneClocks clocks;
};

struct Barrier {
  int arrived = 0, count = 0;
  bool mixed = false;
  Site site{};
};

struct SharedVariable {
  const void* key;
  const char* name;
  char* begin;
  size_t bytes;
};

struct Block {
  uint3 index{};
  unsigned linear = 0;
  int threads = 0, live = 0;
  uint64_t serial = 0;  // no two blocks of the process share one
  std::vector<Thread*> thread;
  std::vector<Warp> warps;
  Barrier barrier;
  std::vector<SharedVariable> shared;
  size_t shared_used = 0, shared_bytes = 0, static_bytes = 0;
  uint32_t first_interval = 0, interval = 0;  // between two barriers; unique over all blocks
  uint64_t barriers = 0;
};

class Random {
 public:
  explicit Random(uint64_t seed = 1) { start(seed); }
  void start(uint64_t seed) { state_ = seed * 0x9E3779B97F4A7C15ull | 1; }
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  size_t below(size_t n) { return size_t((next() >> 32) * n >> 32); }
  bool coin() { return next() >> 40 & 1; }

 private:
  uint64_t state_;
};

struct Machine {
  const Launch* launch = nullptr;
  Thread* current = nullptr;
  /// The running thread where accesses are checked; null while the simulator works for it.
  Thread* checked = nullptr;
  Block block;
  Context scheduler;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Thread*> ready;
  size_t first_ready = 0;
  bool depth_first = false;  // this interval runs a warp as far as it gets before the next
  Random random;
  uint64_t spins = 0;  // yields since anything else happened
  std::string error;
};
inline Machine machine;

/// While the simulator works for the running thread nothing is checked: its own containers may
/// share their code with the kernels' file, and that code reports its accesses.
struct Unchecked {
  Unchecked() { machine.checked = nullptr; }
  ~Unchecked() { machine.checked = machine.current; }
  Unchecked(const Unchecked&) = delete;
};

constexpr size_t kStackBytes = 64 * 1024;

/// Runs every block. Throws Error.
void run_grid(const Launch& launch);
void make_ready(Thread* thread);
/// Leaves the running thread for another that is ready, else for the scheduler.
void switch_away();
/// Gives way to the others that are ready.
void yield();
/// New order of the ready threads, drawn at the start of an interval.
void shuffle_ready();

// rendezvous.cpp: an exit may be what others wait for.
void leave_warp(Thread* thread);
void leave_barrier();

// shared_memory.cpp
void start_shared_memory(Block& block, size_t dynamic_bytes);
/// The variable that holds or is nearest below `address`; null if there is none.
const SharedVariable* shared_variable_at(const char* address);

}  // namespace sim
