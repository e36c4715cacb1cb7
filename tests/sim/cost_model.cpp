#include "tests/sim/cost_model.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <map>
#include <new>
#include <tuple>
#include <unordered_map>

#include "tests/sim/checker.h"
#include "tests/sim/symbols.h"

namespace sim {

bool cost_model_on = false;

namespace {

constexpr size_t kSector = 32, kBanks = 32, kLanes = 32;

struct LaneAccess {
  uint32_t pc, bytes;
  const char* address;
  Kind kind;
};

// What the lanes of a warp do together.
struct WarpAccess {
  uint32_t pc = 0;
  size_t count = 0;
  std::array<const LaneAccess*, kLanes> lane;  // of those that take part
  std::array<uint8_t, kLanes> number;          // theirs in the warp

  void add(const LaneAccess& a, size_t lane_number) {
    lane[count] = &a;
    number[count++] = uint8_t(lane_number);
  }
};

struct LineCount {
  Kind kind = Kind::read;
  uint64_t accesses = 0, used = 0, ideal = 0, ways = 0;
};

struct Entry {
  KernelCost cost;
  std::map<uint32_t, LineCount> global, shared;  // by place in the program
};

// By kernel, grid and block; in order of first launch.
using Key = std::tuple<const void*, std::string, uint64_t, uint64_t, uint64_t>;
struct Book {
  std::map<Key, size_t> index;
  std::vector<Entry> entries;
};
Book& book() {
  static auto* b = new Book;
  return *b;
}

Entry* running = nullptr;
uint64_t most_barriers = 0;                 // of a block of the running launch
std::vector<std::vector<LaneAccess>> logs;  // by thread of the block

// Per sector of the region, the launch that read or wrote it last.
struct Stamps {
  uint32_t* of = nullptr;
  bool first(size_t sector, uint32_t launch) {
    if (!of) {
      const size_t bytes = kRegionBytes / kSector * sizeof(uint32_t);
      void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      of = static_cast<uint32_t*>(memory);
    }
    if (of[sector] == launch) return false;
    of[sector] = launch;
    return true;
  }
};
Stamps reads, writes;
uint32_t launch_number = 0;

Entry& entry_of(const Key& key) {
  Book& b = book();
  const auto [found, is_new] = b.index.try_emplace(key, b.entries.size());
  if (is_new) {
    b.entries.emplace_back();
    KernelCost& cost = b.entries.back().cost;
    const void* function = std::get<0>(key);
    cost.kernel = function ? kernel_name(function).name : std::get<1>(key);
    if (function) cost.file = kernel_name(function).file;
    cost.blocks = std::get<2>(key), cost.threads = std::get<3>(key);
    cost.shared_bytes = std::get<4>(key);
  }
  return b.entries[found->second];
}

size_t count_distinct(std::vector<uintptr_t>& values) {
  std::sort(values.begin(), values.end());
  return size_t(std::unique(values.begin(), values.end()) - values.begin());
}

// The units of `size` bytes that [address, address + bytes) touches.
void add_units(std::vector<uintptr_t>& units, const char* address, size_t bytes, size_t size) {
  const size_t begin = size_t(address - region.begin);
  for (size_t u = begin / size; u * size < begin + bytes; ++u) units.push_back(u);
}

void count_global(const WarpAccess& access) {
  static std::vector<uintptr_t> sectors, words;
  sectors.clear(), words.clear();
  KernelCost& cost = running->cost;
  for (size_t i = 0; i < access.count; ++i) {
    const LaneAccess& a = *access.lane[i];
    add_units(sectors, a.address, a.bytes, kSector);
    add_units(words, a.address, a.bytes, kWord);
    if (a.kind != Kind::write) cost.bytes_read += a.bytes;
    if (a.kind != Kind::read) cost.bytes_written += a.bytes;
  }
  const size_t used = count_distinct(sectors);
  const size_t ideal = (count_distinct(words) * kWord + kSector - 1) / kSector;
  const Kind kind = access.lane[0]->kind;
  for (size_t i = 0; i < used; ++i) {
    if (kind != Kind::write && reads.first(sectors[i], launch_number))
      cost.distinct_read += kSector;
    if (kind != Kind::read && writes.first(sectors[i], launch_number))
      cost.distinct_written += kSector;
  }
  cost.sectors += used;
  cost.ideal_sectors += ideal;
  LineCount& line = running->global[access.pc];
  line.kind = kind;
  ++line.accesses;
  line.used += used, line.ideal += ideal;
}

// The words that the fullest bank gives to lanes [begin, end).
size_t ways(const WarpAccess& access, size_t begin, size_t end) {
  static std::vector<uintptr_t> words;
  words.clear();
  for (size_t i = begin; i < end; ++i)
    add_units(words, access.lane[i]->address, access.lane[i]->bytes, kWord);
  const size_t distinct = count_distinct(words);
  std::array<size_t, kBanks> bank{};
  for (size_t i = 0; i < distinct; ++i) ++bank[words[i] % kBanks];
  return *std::max_element(bank.begin(), bank.end());
}

void count_shared(const WarpAccess& access) {
  KernelCost& cost = running->cost;
  LineCount& line = running->shared[access.pc];
  line.kind = access.lane[0]->kind;
  const size_t bytes = access.lane[0]->bytes;
  const size_t together = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
  ++cost.shared_accesses;
  ++line.accesses;
  for (size_t begin = 0, end = 0; begin < access.count; begin = end) {
    while (end < access.count && access.number[end] / together == access.number[begin] / together)
      ++end;
    const size_t w = ways(access, begin, end);
    cost.shared_passes += w;
    ++cost.ideal_passes;
    line.used += w, ++line.ideal;
    line.ways = std::max<uint64_t>(line.ways, w);
    cost.most_ways = std::max<uint64_t>(cost.most_ways, w);
  }
}

void count(const WarpAccess& access) {
  if (access.lane[0]->address < shared_begin() + kSharedBytes)
    count_shared(access);
  else
    count_global(access);
}

// Lanes that took different ways: the n-th access of a place in one goes with the n-th in others.
void count_diverged(size_t first, size_t last) {
  std::unordered_map<uint64_t, size_t> index;
  std::vector<WarpAccess> accesses;
  for (size_t t = first; t < last; ++t) {
    std::unordered_map<uint32_t, uint32_t> times;
    for (const LaneAccess& a : logs[t]) {
      const uint64_t key = uint64_t(a.pc) << 32 | times[a.pc]++;
      const auto [found, is_new] = index.try_emplace(key, accesses.size());
      if (is_new) accesses.emplace_back().pc = a.pc;
      WarpAccess& access = accesses[found->second];
      access.add(a, t - first);
    }
  }
  for (const WarpAccess& access : accesses) count(access);
}

bool took_one_way(size_t first, size_t last) {
  for (size_t t = first + 1; t < last; ++t)
    if (!std::equal(logs[first].begin(), logs[first].end(), logs[t].begin(), logs[t].end(),
                    [](const LaneAccess& a, const LaneAccess& b) { return a.pc == b.pc; }))
      return false;
  return true;
}

void count_warp(size_t warp) {
  const size_t first = warp * kLanes, last = std::min(logs.size(), first + kLanes);
  if (!took_one_way(first, last)) {
    count_diverged(first, last);
  } else {
    WarpAccess access;
    for (size_t i = 0; i < logs[first].size(); ++i) {
      access.pc = logs[first][i].pc;
      access.count = 0;
      for (size_t t = first; t < last; ++t) access.add(logs[t][i], t - first);
      count(access);
    }
  }
  for (size_t t = first; t < last; ++t) logs[t].clear();
}

std::vector<CostLine> worst_lines(const std::map<uint32_t, LineCount>& places, double limit) {
  std::map<std::string, CostLine> by_line;
  for (const auto& [pc, count] : places) {
    CostLine& line = by_line[source_line(pc) + (count.kind == Kind::read ? " read" : " write")];
    line.accesses += count.accesses, line.used += count.used, line.ideal += count.ideal;
    line.ways = std::max(line.ways, count.ways);
  }
  std::vector<CostLine> worst;
  for (auto& [text, line] : by_line) {
    line.line = text;
    if (line.ratio() > limit) worst.push_back(line);
  }
  std::sort(worst.begin(), worst.end(), [](const CostLine& a, const CostLine& b) {
    return a.used - a.ideal > b.used - b.ideal;
  });
  return worst;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

void print_lines(std::ostream& out, const char* name, const std::vector<CostLine>& lines) {
  out << ", \"" << name << "\": [";
  for (const CostLine& l : lines)
    out << (&l == lines.data() ? "" : ", ") << "{\"at\": " << quoted(l.line)
        << ", \"accesses\": " << l.accesses << ", \"used\": " << l.used
        << ", \"ideal\": " << l.ideal << ", \"ways\": " << l.ways << "}";
  out << "]";
}

// SIM_COST=FILE.
const bool from_environment = [] {
  if (!std::getenv("SIM_COST")) return false;
  start_costs();
  std::atexit([] {
    std::ofstream file(std::getenv("SIM_COST"));
    print_costs(file);
  });
  return true;
}();

}  // namespace

void start_costs() {
  book() = {};
  cost_model_on = true;
}

void stop_costs() { cost_model_on = false; }

std::vector<KernelCost> costs() {
  std::vector<uint32_t> places;
  for (const Entry& entry : book().entries)
    for (const auto* lines : {&entry.global, &entry.shared})
      for (const auto& [pc, count] : *lines) places.push_back(pc);
  look_up_lines(places);
  std::vector<KernelCost> all;
  for (const Entry& entry : book().entries) {
    KernelCost cost = entry.cost;
    cost.scattered = worst_lines(entry.global, 1.1);
    cost.conflicting = worst_lines(entry.shared, 1);
    all.push_back(std::move(cost));
  }
  return all;
}

void print_costs(std::ostream& out) {
  for (const KernelCost& c : costs()) {
    out << "{\"kernel\": " << quoted(c.kernel) << ", \"file\": " << quoted(c.file)
        << ", \"launches\": " << c.launches << ", \"blocks\": " << c.blocks
        << ", \"threads\": " << c.threads << ", \"dynamic_shared_bytes\": " << c.shared_bytes
        << ", \"bytes_read\": " << c.bytes_read << ", \"bytes_written\": " << c.bytes_written
        << ", \"distinct_read\": " << c.distinct_read
        << ", \"distinct_written\": " << c.distinct_written << ", \"sectors\": " << c.sectors
        << ", \"ideal_sectors\": " << c.ideal_sectors
        << ", \"shared_accesses\": " << c.shared_accesses
        << ", \"shared_passes\": " << c.shared_passes << ", \"ideal_passes\": " << c.ideal_passes
        << ", \"most_ways\": " << c.most_ways << ", \"barriers\": " << c.barriers
        << ", \"flops\": ";
    if (c.flops >= 0)
      out << c.flops;
    else
      out << "null";
    print_lines(out, "scattered", c.scattered);
    print_lines(out, "conflicting", c.conflicting);
    out << "}\n";
  }
}

void cost_launch_start(const Launch& launch) {
  running = nullptr;
  if (!cost_model_on) return;
  const dim3 g = launch.grid, b = launch.block;
  running = &entry_of({launch.function, "", uint64_t(g.x) * g.y * g.z, uint64_t(b.x) * b.y * b.z,
                       launch.shared_bytes});
  ++running->cost.launches;
  if (launch.flops >= 0) running->cost.flops = std::max(running->cost.flops, 0.0) + launch.flops;
  ++launch_number;
  most_barriers = 0;
  logs.resize(size_t(b.x) * b.y * b.z);
  for (auto& log : logs) log.clear();  // each keeps its room
}

void cost_launch_end() {
  if (running) running->cost.barriers += most_barriers;
  running = nullptr;
}

void cost_block_end() {
  if (!running) return;
  for (size_t w = 0; w < machine.block.warps.size(); ++w) count_warp(w);
  most_barriers = std::max(most_barriers, machine.block.barriers);
}

void cost_warp_step(const Warp& warp) {
  if (running) count_warp(size_t(warp.index));
}

void cost_barrier() {
  if (!running) return;
  for (size_t w = 0; w < machine.block.warps.size(); ++w) count_warp(w);
}

void cost_access(const Thread& thread, const char* address, size_t bytes, Kind kind, uint32_t pc) {
  if (!running) return;
  const Unchecked guard;
  logs[size_t(thread.rank)].push_back({pc, uint32_t(bytes), address, kind});
}

void cost_operation(const std::string& what, uint64_t read, uint64_t written, double flops) {
  if (!cost_model_on) return;
  KernelCost& cost = entry_of({nullptr, what, 0, 0, 0}).cost;
  ++cost.launches;
  cost.bytes_read += read, cost.bytes_written += written;
  cost.distinct_read += read, cost.distinct_written += written;
  cost.flops = std::max(cost.flops, 0.0) + flops;
}

}  // namespace sim
