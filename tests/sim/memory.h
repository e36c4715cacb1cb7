// The simulated device's memory: one region of addresses with a shadow that says of every byte
// whether it is allocated and written, and of every word who accessed it last.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace sim {

constexpr size_t kRegionBytes = size_t(1) << 33;
// The region's start is the running block's shared memory, its second half what cudaMalloc gives.
constexpr size_t kSharedBytes = 512 * 1024;
constexpr size_t kDeviceBytes = kRegionBytes / 2;
constexpr size_t kWord = 4;

/// Who accessed a word: a thread, or several of a warp; more is only remembered as a flag.
struct Access {
  uint32_t interval = 0;  // between two barriers of a block, or a whole copy; 0: nobody
  uint32_t lanes = 0;
  uint32_t pc = 0;  // the place in the program, from its start
  uint32_t clock : 24 = 0;
  uint32_t warp : 5 = 0;
  uint32_t atomic : 1 = 0;
  uint32_t many_warps : 1 = 0;   // others of the block too, in the same interval
  uint32_t many_blocks : 1 = 0;  // others of the grid too, in no order with this one
};

/// The last write, or the atomic accesses since, and the reads after it.
struct Cell {
  Access write, read;
};

/// write.interval of a word whose bytes were accessed apart: byte_cells() has its cells.
constexpr uint32_t kSplit = UINT32_MAX;

struct Region {
  char* begin = nullptr;
  Cell* cells = nullptr;     // one per word
  uint8_t* state = nullptr;  // one per word: bits 0 to 3, the byte is allocated; 4 to 7, written
};
/// Made before the first use by make_region(), never given back: tests keep device memory in
/// objects of static life.
inline Region region;
void make_region();

std::array<Cell, kWord>& byte_cells(size_t word);

inline char* shared_begin() { return region.begin; }
inline char* device_begin() { return region.begin + kRegionBytes - kDeviceBytes; }
inline bool in_region(const void* address) {
  return size_t(static_cast<const char*>(address) - region.begin) < kRegionBytes;
}

void set_addressable(char* begin, size_t bytes);
void set_written(const char* begin, size_t bytes);
/// Neither allocated nor written any more.
void clear_state(char* begin, size_t bytes);
/// The first byte that is not written, from `begin`; bytes if all are.
size_t first_unwritten(const char* begin, size_t bytes);
/// Says of `target` what holds of `source`: a copy.
void copy_written(char* target, const char* source, size_t bytes);

enum class Owner : uint8_t { device, managed, pinned };

struct Allocation {
  char* begin = nullptr;
  size_t bytes = 0;
  Owner owner = Owner::device;
  bool live = true;
};

/// Null if the region is full.
char* allocate(size_t bytes, Owner owner);
/// False if nothing that lives starts there.
bool deallocate(void* begin);
/// The live allocation that holds `address`, or null.
const Allocation* find_allocation(const void* address);
/// "device memory, byte 12 of 400", or what else is there.
std::string describe_address(const void* address);
/// Of cudaMalloc's memory: what lives, and how far its addresses were ever used.
size_t allocated_bytes();
size_t device_bytes_used();

}  // namespace sim
