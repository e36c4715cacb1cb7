#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>

#include "tests/sim/checker.h"
#include "tests/sim/control.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/machine.h"
#include "tests/sim/symbols.h"

namespace sim {
namespace {

constexpr uint64_t kLivelock = 1'000'000;

bool executes = true;
uint64_t the_seed = [] {
  const char* text = std::getenv("SIM_SEED");
  return text ? std::strtoull(text, nullptr, 0) : 1;
}();
uint64_t seeds_set = 1;
uint64_t launches = 0;
uint64_t blocks = 0;

std::string text(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

Thread* pick() {
  Machine& m = machine;
  const size_t n = m.ready.size() - m.first_ready;
  if (n == 0) return nullptr;
  Thread* picked;
  if (m.depth_first) {
    picked = m.ready.back();
    m.ready.pop_back();
  } else {
    std::swap(m.ready[m.first_ready + m.random.below(n)], m.ready[m.first_ready]);
    picked = m.ready[m.first_ready++];
  }
  if (m.first_ready == m.ready.size()) m.ready.clear(), m.first_ready = 0;
  return picked;
}

void exit_thread() {
  Thread* t = machine.current;
  t->state = Thread::State::done;
  --machine.block.live;
  machine.spins = 0;
  leave_warp(t);
  leave_barrier();
  switch_away();
}

// Where every thread of the device starts, and starts again for the next block.
void thread_main() {
  for (;;) {
    machine.checked = machine.current;
    machine.launch->call->run();
    machine.checked = nullptr;
    exit_thread();
  }
}

void add_thread() {
  const size_t guard = 4096;  // a stack that overflows ends in a segmentation fault
  void* memory = mmap(nullptr, kStackBytes + guard, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, guard, PROT_NONE);
  machine.threads.push_back(std::make_unique<Thread>());
  machine.threads.back()->stack = static_cast<char*>(memory) + guard;
}

void start_threads(Block& block, dim3 size) {
  const int n = int(size.x * size.y * size.z);
  block.threads = block.live = n;
  block.thread.resize(size_t(n));
  block.warps.resize(size_t(n + 31) / 32);
  for (size_t w = 0; w < block.warps.size(); ++w) {
    Warp& warp = block.warps[w];
    warp.index = int(w);
    warp.present = warp.exited = warp.waiting = 0;
    warp.clocks.reset();
  }
  while (machine.threads.size() < size_t(n)) add_thread();
  for (int i = 0; i < n; ++i) {
    Thread* t = machine.threads[size_t(i)].get();
    if (!t->prepared)  // stacks start at different sets of the cache
      prepare(t->context, t->stack, kStackBytes - size_t(i % 31) * 192, thread_main);
    t->prepared = true;
    t->warp = &block.warps[size_t(i / 32)];
    t->rank = i, t->lane = i % 32;
    t->index = {unsigned(i) % size.x, unsigned(i) / size.x % size.y, unsigned(i) / size.x / size.y};
    t->fence.interval = 0;
    t->warp->present |= 1u << t->lane;
    t->warp->lane[t->lane] = t;
    block.thread[size_t(i)] = t;
    make_ready(t);
  }
}

std::string deadlock_report() {
  std::map<std::string, std::pair<int, const Thread*>> waiting;
  int exited = 0;
  for (const Thread* t : machine.block.thread) {
    if (t->state == Thread::State::done) {
      ++exited;
      continue;
    }
    char mask[32] = "";
    if (t->state == Thread::State::in_warp_step) snprintf(mask, sizeof mask, " mask %08x", t->mask);
    auto& group = waiting[std::string(t->waits_in) + mask + " at " + site_text(t->site)];
    if (group.first++ == 0) group.second = t;
  }
  std::string report = "deadlock: " + std::to_string(exited) + " of " +
                       std::to_string(machine.block.threads) + " threads have exited";
  for (const auto& [where, group] : waiting)
    report += "; " + std::to_string(group.first) + " wait in " + where + " (first: thread " +
              text(group.second->index) + ")";
  return report + " [block " + text(machine.block.index) + "]";
}

// After an error the threads never return: they start anew on their stacks.
void give_up_threads() {
  for (const auto& t : machine.threads) {
    t->prepared = false;
    t->state = Thread::State::done;
  }
  machine.ready.clear();
  machine.first_ready = 0;
}

void run_block(const Launch& launch, unsigned linear) {
  Machine& m = machine;
  Block& block = m.block;
  const dim3 grid = launch.grid;
  block.linear = linear;
  block.index = {linear % grid.x, linear / grid.x % grid.y, linear / grid.x / grid.y};
  block.serial = ++blocks;
  block.barrier = {};
  block.barriers = 0;
  check_block_start(block);
  start_shared_memory(block, launch.shared_bytes);
  start_threads(block, launch.block);
  shuffle_ready();
  m.spins = 0;
  m.error.clear();
  m.current = pick();
  switch_context(m.scheduler, m.current->context);
  m.current = nullptr;
  if (m.error.empty() && block.live > 0)
    m.error = "kernel " + kernel_name(launch.function).name + ": " + deadlock_report();
  if (m.error.empty()) return cost_block_end();
  give_up_threads();
  throw Error("sim: " + m.error);
}

}  // namespace

uint3 thread_index() { return machine.current->index; }
uint3 block_index() { return machine.block.index; }
dim3 block_size() { return machine.launch->block; }
dim3 grid_size() { return machine.launch->grid; }
int lane_index() { return machine.current->lane; }

void set_seed(uint64_t seed) {
  the_seed = seed;
  ++seeds_set;
  launches = 0;
}
uint64_t seed() { return the_seed; }
uint64_t seeds() { return seeds_set; }
void set_execution(bool on) { executes = on; }
bool execution() { return executes; }

void fail(const std::string& what) {
  Machine& m = machine;
  m.checked = nullptr;
  if (!m.current) throw Error("sim: " + what);
  m.error = "kernel " + kernel_name(m.launch->function).name + ": " + what + " [block " +
            text(m.block.index) + " thread " + text(m.current->index) + "]";
  switch_context(m.current->context, m.scheduler);
  std::abort();  // nobody comes back
}

void make_ready(Thread* thread) {
  thread->state = Thread::State::ready;
  machine.ready.push_back(thread);
}

void shuffle_ready() {
  Machine& m = machine;
  m.depth_first = m.random.coin();
  if (!m.depth_first) return;
  for (size_t i = m.ready.size(); i > m.first_ready + 1; --i)
    std::swap(m.ready[i - 1], m.ready[m.first_ready + m.random.below(i - m.first_ready)]);
}

void switch_away() {
  Machine& m = machine;
  Thread* from = m.current;
  Thread* to = pick();
  if (to == from) return;
  m.current = to;
  switch_context(from->context, to ? to->context : m.scheduler);
}

void yield() {
  Machine& m = machine;
  if (++m.spins > kLivelock)
    fail(
        "livelock: threads spin and nothing else happens (a block that waits for another may wait "
        "for ever: nothing says that both are resident)");
  if (m.ready.size() == m.first_ready) return;
  m.depth_first = false;  // which would pick this thread again
  make_ready(m.current);
  switch_away();
}

void run_grid(const Launch& launch) {
  Machine& m = machine;
  m.launch = &launch;
  m.random.start(the_seed ^ ++launches << 20);
  std::vector<unsigned> order(size_t(launch.grid.x) * launch.grid.y * launch.grid.z);
  for (size_t i = 0; i < order.size(); ++i) order[i] = unsigned(i);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[m.random.below(i)]);
  check_launch_start();
  cost_launch_start(launch);
  for (unsigned linear : order) run_block(launch, linear);
  cost_launch_end();
}

}  // namespace sim
