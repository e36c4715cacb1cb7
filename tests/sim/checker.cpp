#include "tests/sim/checker.h"

#include <algorithm>

#include "tests/sim/control.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/symbols.h"

extern "C" const char __executable_start, _end;

namespace sim {
namespace {

const char* verb(Kind kind) {
  return kind == Kind::read ? "read" : kind == Kind::write ? "write" : "atomic access";
}

uint32_t place(const void* pc) {
  return uint32_t(static_cast<const char*>(pc) - &__executable_start);
}

std::string describe(const char* p) {
  if (size_t(p - shared_begin()) >= kSharedBytes) return describe_address(p);
  const SharedVariable* v = shared_variable_at(p);
  if (!v) return "shared memory before every variable";
  const std::string name = "shared `" + std::string(v->name) + "`";
  const size_t at = size_t(p - v->begin);
  if (at < v->bytes)
    return name + ", byte " + std::to_string(at) + " of " + std::to_string(v->bytes);
  return std::to_string(at - v->bytes) + " bytes past the end of " + name + " of " +
         std::to_string(v->bytes) + " bytes";
}

[[noreturn, gnu::noinline]] void report(const std::string& what, uint32_t pc) {
  fail(what + " at " + source_line(pc));
}

[[noreturn, gnu::noinline]] void report_race(const char* p, Kind kind, uint32_t pc,
                                             const Access& other, Kind other_kind) {
  const Unchecked guard;
  report("data race: " + std::string(verb(kind)) + " of " + describe(p) + " against a" +
             (other_kind == Kind::read ? " read"
              : other.atomic           ? "n atomic access"
                                       : " write") +
             " by " + describe_access(other),
         pc);
}

[[noreturn, gnu::noinline]] void report_state(const char* p, unsigned missing, Kind kind,
                                              size_t bytes, uint32_t pc) {
  const Unchecked guard;
  const bool outside = (missing & 0xF) != 0;
  p += __builtin_ctz(outside ? missing : missing >> 4);
  if (outside)
    report("out of bounds: " + std::string(verb(kind)) + " of " + std::to_string(bytes) +
               " bytes, " + describe(p),
           pc);
  report(std::string(verb(kind)) + " of uninitialised " + describe(p), pc);
}

[[noreturn, gnu::noinline]] void report_misaligned(const char* p, Kind kind, size_t bytes,
                                                   uint32_t pc) {
  const Unchecked guard;
  report("misaligned " + std::string(verb(kind)) + " of " + std::to_string(bytes) +
             " bytes: " + describe(p),
         pc);
}

// An address that is none of the device's.
[[gnu::noinline]] void check_elsewhere(const char* p, size_t bytes, Kind kind, uint32_t pc) {
  const Unchecked guard;
  const char* const arguments = reinterpret_cast<const char*>(machine.launch->call.get());
  if (kind == Kind::read && size_t(p - arguments) < machine.launch->call->bytes()) return;
  // Constants of the program.
  if (kind == Kind::read && p >= &__executable_start && p < &_end) return;
  const auto& threads = machine.block.thread;
  if (std::any_of(threads.begin(), threads.end(),
                  [&](const Thread* t) { return size_t(p - t->stack) < kStackBytes; }))
    report(std::string(verb(kind)) + " of another thread's local variable", pc);
  char address[32];
  snprintf(address, sizeof address, "%p", static_cast<const void*>(p));
  report(std::string(verb(kind)) + " of " + std::to_string(bytes) + " bytes at " + address +
             ", which is not the device's memory (a pointer of the host?)",
         pc);
}

// `shared`: of shared memory, of which other blocks' accesses are none of this one's.
inline bool ordered(const Access& a, const Thread& t, bool shared) {
  const Block& block = machine.block;
  if (a.interval < block.first_interval)
    return shared || a.interval <= all_ordered_until || ordered_before_thread(a, t);
  if (a.interval == block.interval) {
    if (a.many_warps || int(a.warp) != t.warp->index) return false;
    for (uint32_t others = a.lanes & ~(1u << t.lane); others != 0; others &= others - 1)
      if (!t.warp->clocks.knows(t.lane, __builtin_ctz(others), a.clock)) return false;
  }
  return !a.many_blocks || ordered_before_thread(a, t);
}

Access access_of(const Thread& t, uint32_t pc, bool atomic) {
  Access a;
  a.interval = machine.block.interval;
  a.lanes = 1u << t.lane;
  a.pc = pc;
  a.clock = t.warp->clocks.time(t.lane) & (LaneClocks::kEnd - 1);
  a.warp = unsigned(t.warp->index) & 31;
  a.atomic = atomic;
  return a;
}

[[gnu::noinline]] void add_to_earlier(Access& a, const Thread& t, uint32_t pc, bool atomic,
                                      bool shared) {
  // Of an earlier interval of the block it is ordered before this access, of an earlier operation
  // it is forgotten, and of another block it counts on.
  const bool matters = !shared && a.interval > all_ordered_until && !of_ordered_operation(a);
  const bool many_blocks =
      matters && (a.many_blocks ||
                  (a.interval < machine.block.first_interval && !ordered_before_thread(a, t)));
  a = access_of(t, pc, atomic);
  a.many_blocks = many_blocks;
}

// Adds the running thread to those who read a word, or changed it by atomics.
inline void add(Access& a, const Thread& t, uint32_t pc, bool atomic, bool shared) {
  if (a.interval != machine.block.interval) return add_to_earlier(a, t, pc, atomic, shared);
  if (int(a.warp) != t.warp->index) {
    a.many_warps = 1;
    return;
  }
  const uint32_t clock = t.warp->clocks.time(t.lane);
  a.lanes |= 1u << t.lane;
  if (clock > a.clock) a.clock = clock & (LaneClocks::kEnd - 1);
}

template <Kind kind>
inline void check_cell(Cell& cell, const Thread& t, const char* p, uint32_t pc) {
  const bool shared = p < shared_begin() + kSharedBytes;
  Access& write = cell.write;
  if (write.interval != 0 && !(kind == Kind::atomic && write.atomic) && !ordered(write, t, shared))
    report_race(p, kind, pc, write, Kind::write);
  if constexpr (kind == Kind::read) {
    add(cell.read, t, pc, false, shared);
  } else {
    if (cell.read.interval != 0 && !ordered(cell.read, t, shared))
      report_race(p, kind, pc, cell.read, Kind::read);
    cell.read.interval = 0;
    if (kind == Kind::atomic && write.atomic)
      add(write, t, pc, true, shared);
    else
      write = access_of(t, pc, kind == Kind::atomic);
  }
}

template <Kind kind>
inline void check_word(size_t word, unsigned mask, const Thread& t, size_t bytes, uint32_t pc) {
  uint8_t& state = region.state[word];
  const unsigned needed = kind == Kind::write ? mask : mask | mask << 4;
  if ((state & needed) != needed) [[unlikely]]
    report_state(region.begin + word * kWord, needed & ~unsigned(state), kind, bytes, pc);
  if constexpr (kind != Kind::read) state |= uint8_t(mask << 4);
  Cell& cell = region.cells[word];
  if (mask == 0xF && cell.write.interval != kSplit) [[likely]]
    return check_cell<kind>(cell, t, region.begin + word * kWord, pc);
  const Unchecked guard;
  auto& cells = byte_cells(word);
  for (size_t i = 0; i < kWord; ++i)
    if (mask >> i & 1) check_cell<kind>(cells[i], t, region.begin + word * kWord + i, pc);
}

template <Kind kind>
void check_bytes(size_t offset, size_t bytes, const Thread& t, uint32_t pc) {
  for (size_t at = offset; at < offset + bytes;) {
    const size_t word = at / kWord, end = std::min((word + 1) * kWord, offset + bytes);
    const unsigned mask = (0xFu >> (kWord - (end - at))) << at % kWord;
    check_word<kind>(word, mask, t, bytes, pc);
    at = end;
  }
}

// An access of the running thread; `bytes` of 0 to 16 and a power of 2 promise their own alignment.
template <Kind kind>
[[gnu::always_inline]] inline void check(const void* address, size_t bytes, bool vector,
                                         const void* return_address) {
  const Thread* t = machine.checked;
  if (!t) return;
  const char* const p = static_cast<const char*>(address);
  if (size_t(p - t->stack) < kStackBytes) return;
  const size_t offset = size_t(p - region.begin);
  const uint32_t pc = place(return_address);
  if (offset >= kRegionBytes) [[unlikely]]
    return check_elsewhere(p, bytes, kind, pc);
  if (vector && offset % bytes != 0) [[unlikely]]
    report_misaligned(p, kind, bytes, pc);
  if (cost_model_on) [[unlikely]]
    cost_access(*t, p, bytes, kind, pc);
  if (bytes % kWord != 0 || offset % kWord != 0) return check_bytes<kind>(offset, bytes, *t, pc);
  for (size_t word = offset / kWord, end = word + bytes / kWord; word < end; ++word)
    check_word<kind>(word, 0xF, *t, bytes, pc);
}

template <Kind kind>
void check_operation_cell(Cell& cell, const char* p, const std::string& running) {
  const auto race = [&](const Access& a, Kind other) {
    throw Error("sim: data race: " + running + " " + (kind == Kind::read ? "reads " : "writes ") +
                describe_address(p) + (other == Kind::read ? ", read" : ", written") + " by " +
                describe_access(a));
  };
  if (cell.write.interval != 0 && !ordered_before_operation(cell.write))
    race(cell.write, Kind::write);
  Access now;
  now.interval = running_interval();
  if (kind == Kind::read) return cell.read = now, void();
  if (cell.read.interval != 0 && !ordered_before_operation(cell.read)) race(cell.read, Kind::read);
  cell.read.interval = 0;
  cell.write = now;
}

}  // namespace

void check_operation(const void* begin, size_t bytes, Kind kind, const std::string& running) {
  const size_t first = size_t(static_cast<const char*>(begin) - region.begin), end = first + bytes;
  for (size_t at = first; at < end;) {
    const size_t word = at / kWord, next = std::min((word + 1) * kWord, end);
    const char* const p = region.begin + at;
    const auto check_one = [&](Cell& cell) {
      if (kind == Kind::read)
        check_operation_cell<Kind::read>(cell, p, running);
      else
        check_operation_cell<Kind::write>(cell, p, running);
    };
    if (next - at == kWord && region.cells[word].write.interval != kSplit) {
      check_one(region.cells[word]);
    } else {
      auto& cells = byte_cells(word);
      for (size_t b = at % kWord; b < at % kWord + (next - at); ++b) check_one(cells[b]);
    }
    at = next;
  }
}

void begin_atomic(void* address, size_t bytes) {
  machine.checked = nullptr;
  if (machine.random.below(16) == 0) yield();
  machine.checked = machine.current;
  check<Kind::atomic>(address, bytes, true, __builtin_return_address(0));
  machine.checked = nullptr;
  if (in_region(address) && address >= shared_begin() + kSharedBytes)
    note_atomic(*machine.current, address);
}
void end_atomic() { machine.checked = machine.current; }

}  // namespace sim

// What g++ -fsanitize=thread calls.
#define SIM_ACCESS(bytes)                                                      \
  void __tsan_read##bytes(void* p) {                                           \
    sim::check<sim::Kind::read>(p, bytes, true, __builtin_return_address(0));  \
  }                                                                            \
  void __tsan_write##bytes(void* p) {                                          \
    sim::check<sim::Kind::write>(p, bytes, true, __builtin_return_address(0)); \
  }
extern "C" {
SIM_ACCESS(1)
SIM_ACCESS(2)
SIM_ACCESS(4)
SIM_ACCESS(8)
SIM_ACCESS(16)
void __tsan_read_range(void* p, unsigned long bytes) {
  sim::check<sim::Kind::read>(p, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, unsigned long bytes) {
  sim::check<sim::Kind::write>(p, bytes, false, __builtin_return_address(0));
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
// Of the host's part of a .cu file: static variables and shared pointers.
unsigned char __tsan_atomic8_load(const volatile unsigned char* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
unsigned __tsan_atomic32_fetch_add(volatile unsigned* p, unsigned value, int) {
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
}
