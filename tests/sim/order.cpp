// Which accesses come before which for sure.
#include <algorithm>
#include <unordered_map>

#include "tests/sim/checker.h"
#include "tests/sim/control.h"
#include "tests/sim/symbols.h"

namespace sim {

uint32_t all_ordered_until = 0;

namespace {

// Operations that some later one may not be ordered after, by first interval.
struct Past {
  uint32_t first_interval;
  Operation operation;
};
std::vector<Past> past;
Clock executed;  // per stream, the last position that ran
uint32_t last_interval = 0;

// The running grid: its first interval and the block of every interval since.
uint32_t launch_first = 0;
std::vector<uint32_t> block_of_interval;

// What a thread had fenced when it did an atomic, and who read an atomic after it.
struct Release {
  Fence fence;
  const void* address;
  uint64_t time;
};
struct Acquire {
  const void* address;
  uint64_t time;
  uint32_t interval;
  int warp, lane;
  uint32_t clock;
};
std::unordered_map<uint32_t, std::vector<Release>> releases;  // by block
std::vector<Acquire> acquires;                                // of the running block
uint64_t time_now = 0;

uint32_t new_interval() {
  // The last value marks words that are split.
  if (++last_interval == kSplit) throw Error("sim: too many barriers for one process");
  return last_interval;
}

uint32_t new_block_interval(const Block& block) {
  const uint32_t interval = new_interval();
  block_of_interval.push_back(block.linear);
  return interval;
}

const Past* past_of(uint32_t interval) {
  const auto after =
      std::upper_bound(past.begin(), past.end(), interval,
                       [](uint32_t i, const Past& p) { return i < p.first_interval; });
  return after == past.begin() ? nullptr : &*std::prev(after);
}

bool operation_ordered(uint32_t interval) {
  if (interval <= all_ordered_until) return true;
  const Past* p = past_of(interval);
  if (!p || p == &past.back()) return true;
  const Operation& running = past.back().operation;
  const size_t stream = size_t(p->operation.stream);
  return stream < running.before.size() && running.before[stream] >= p->operation.position;
}

bool releases_access(const Release& r, const Access& a) {
  if (a.interval != r.fence.interval) return a.interval < r.fence.interval;
  if (a.many_warps || int(a.warp) != r.fence.warp) return false;
  for (int i = 0; i < 32; ++i)
    if (a.lanes >> i & 1 && r.fence.known[i] < a.clock) return false;
  return true;
}

bool acquired(const Release& r, const Thread& t) {
  for (const Acquire& q : acquires) {
    if (q.address != r.address || q.time < r.time) continue;
    if (q.interval < machine.block.interval) return true;
    if (q.warp == t.warp->index &&
        (q.lane == t.lane || t.warp->clocks.knows(t.lane, q.lane, q.clock)))
      return true;
  }
  return false;
}

// Several blocks accessed the word: every block that ran must have released something to this
// thread, as those of a last block that sums up have.
bool after_every_block(const Thread& t) {
  static uint32_t interval = 0;
  static int rank = 0;
  static bool result = false;
  if (interval == machine.block.interval && rank == t.rank) return result;
  interval = machine.block.interval, rank = t.rank, result = false;
  uint32_t before = machine.block.linear;
  for (uint32_t block : block_of_interval) {
    if (block == before || block == machine.block.linear) continue;
    before = block;
    const auto found = releases.find(block);
    if (found == releases.end()) return false;
    const auto& list = found->second;
    if (std::none_of(list.begin(), list.end(), [&](const Release& r) { return acquired(r, t); }))
      return false;
  }
  return result = true;
}

bool same_fence(const Fence& a, const Fence& b) {
  return a.interval == b.interval && a.warp == b.warp &&
         std::equal(std::begin(a.known), std::end(a.known), std::begin(b.known));
}

}  // namespace

uint32_t running_interval() { return last_interval; }

void check_operation_start(const Operation& operation) {
  const size_t stream = size_t(operation.stream);
  if (executed.size() <= stream) executed.resize(stream + 1);
  bool all = true;
  for (size_t s = 0; s < executed.size(); ++s)
    all &= s == stream || executed[s] <= (s < operation.before.size() ? operation.before[s] : 0);
  executed[stream] = operation.position;
  past.push_back({new_interval(), operation});
  all_ordered_until = last_interval - 1;
  if (all) return;
  for (const Past& p : past) {
    all_ordered_until = p.first_interval - 1;
    const size_t s = size_t(p.operation.stream);
    if (s >= operation.before.size() || operation.before[s] < p.operation.position) return;
  }
}

void check_all_ordered() {
  past.clear();
  all_ordered_until = last_interval;
}

void check_launch_start() {
  launch_first = last_interval + 1;
  block_of_interval.clear();
  releases.clear();
}

void check_block_start(Block& block) {
  acquires.clear();
  block.first_interval = block.interval = new_block_interval(block);
}

void check_interval_start(Block& block) { block.interval = new_block_interval(block); }

bool ordered_before_thread(const Access& a, const Thread& t) {
  if (a.interval < launch_first) return operation_ordered(a.interval);
  if (a.many_blocks) return after_every_block(t);
  const uint32_t block = block_of_interval[a.interval - launch_first];
  if (block == machine.block.linear) return true;
  const auto found = releases.find(block);
  if (found == releases.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(),
                     [&](const Release& r) { return releases_access(r, a) && acquired(r, t); });
}

bool of_ordered_operation(const Access& a) {
  return a.interval < launch_first && operation_ordered(a.interval);
}

bool ordered_before_operation(const Access& a) { return operation_ordered(a.interval); }

void device_fence() {
  const Unchecked guard;
  Thread& t = *machine.current;
  Fence& fence = t.fence;
  fence.interval = machine.block.interval;
  fence.warp = t.warp->index;
  for (int i = 0; i < 32; ++i) fence.known[i] = t.warp->clocks.known(t.lane, i);
  fence.known[t.lane] = t.warp->clocks.time(t.lane);
}

void note_atomic(Thread& t, const void* address) {
  ++time_now;
  if (t.fence.interval != 0) {
    auto& list = releases[machine.block.linear];
    if (std::none_of(list.begin(), list.end(), [&](const Release& r) {
          return r.address == address && same_fence(r.fence, t.fence);
        }))
      list.push_back({t.fence, address, time_now});
  }
  const Acquire now{address,       time_now, machine.block.interval,
                    t.warp->index, t.lane,   t.warp->clocks.time(t.lane)};
  for (Acquire& q : acquires)
    if (q.address == address && q.interval == now.interval && q.warp == now.warp &&
        q.lane == now.lane && q.clock == now.clock)
      return q = now, void();
  acquires.push_back(now);
}

std::string describe_access(const Access& a) {
  const bool here = machine.current && a.interval >= launch_first;
  if (here) {
    const uint32_t block = block_of_interval[a.interval - launch_first];
    const int lane = a.lanes ? __builtin_ctz(a.lanes) : 0;
    return std::string(a.many_warps || a.many_blocks ? "several threads, one of them " : "") +
           "thread " + std::to_string(a.warp * 32 + unsigned(lane)) + " of block " +
           std::to_string(block) + " at " + source_line(a.pc);
  }
  const Past* p = past_of(a.interval);
  if (!p) return "an operation before";
  const std::string name =
      p->operation.function
          ? "kernel " + kernel_name(p->operation.function).name + " at " + source_line(a.pc)
          : p->operation.what;
  return name + " of stream " + std::to_string(p->operation.stream) +
         ", which no event or wait orders before this";
}

}  // namespace sim
