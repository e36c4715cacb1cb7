#include "tests/sim/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <new>

namespace sim {
namespace {

constexpr size_t kPage = 4096;

template <class T>
T* reserve(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<T*>(memory);
}

// By first address. Of what was freed the entry stays until its addresses are used again.
std::map<const char*, Allocation>& allocations() {
  static auto* all = new std::map<const char*, Allocation>;
  return *all;
}
std::map<size_t, std::array<Cell, kWord>>& split_words() {
  static auto* all = new std::map<size_t, std::array<Cell, kWord>>;
  return *all;
}
// Where allocations of an owner go: the next of them, what lives, the end of what was ever used.
struct Zone {
  size_t begin, end;
  size_t next = begin, live = 0, high = begin;
};
Zone device_zone{kRegionBytes - kDeviceBytes, kRegionBytes};
Zone host_zone{kSharedBytes, kRegionBytes - kDeviceBytes};
Zone& zone_of(Owner owner) { return owner == Owner::device ? device_zone : host_zone; }

// So much is allocated before addresses are used again, which tells a use after free from others.
constexpr size_t kReuseDistance = size_t(128) << 20;
size_t made = 0;

size_t offset(const void* address) {
  return size_t(static_cast<const char*>(address) - region.begin);
}

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// Bytes [begin, end) of a word.
uint8_t mask_of(size_t begin, size_t end) { return uint8_t(0xFu << begin & 0xFu >> (kWord - end)); }

// f(word, mask): the words of a range, with the bytes that belong to it.
template <class F>
void for_words(const void* begin, size_t bytes, F f) {
  const size_t first = offset(begin), end = first + bytes;
  const size_t first_whole = round_up(first, kWord) / kWord, end_whole = end / kWord;
  if (bytes == 0) return;
  if (first_whole > end_whole) return f(end_whole, mask_of(first % kWord, end % kWord));
  if (first % kWord != 0) f(first / kWord, mask_of(first % kWord, kWord));
  for (size_t word = first_whole; word < end_whole; ++word) f(word, uint8_t(0xF));
  if (end % kWord != 0) f(end_whole, mask_of(0, end % kWord));
}

// The pages of an allocation, which are its alone.
size_t first_page(const Allocation& a) { return offset(a.begin) / kPage * kPage; }
size_t end_page(const Allocation& a) { return round_up(offset(a.begin) + a.bytes, kPage); }

// Room for `bytes` from zone.next to `end`, which is left behind it; null if there is none.
char* find_room_before(Zone& zone, size_t bytes, size_t end) {
  auto& all = allocations();
  auto next = all.lower_bound(region.begin + zone.next);
  while (zone.next + bytes <= end) {
    char* const begin = region.begin + zone.next;
    while (next != all.end() && !next->second.live && next->first < begin + bytes)
      next = all.erase(next);
    if (next == all.end() || next->first >= begin + bytes) {
      zone.next += bytes;
      zone.high = std::max(zone.high, zone.next);
      return begin;
    }
    zone.next = end_page(next->second);
    ++next;
  }
  return nullptr;
}

char* find_room(Zone& zone, size_t bytes) {
  const size_t soon = zone.begin + 2 * (zone.live + bytes) + kReuseDistance;
  if (char* found = find_room_before(zone, bytes, std::min(soon, zone.end))) return found;
  zone.next = zone.begin;
  return find_room_before(zone, bytes, zone.end);
}

// The entry at or below `address`, dead or alive; null if it lies beyond the entry's end.
const Allocation* entry_of(const char* address) {
  auto next = allocations().upper_bound(address);
  if (next == allocations().begin()) return nullptr;
  const Allocation& a = std::prev(next)->second;
  return address < a.begin + a.bytes ? &a : nullptr;
}

}  // namespace

void make_region() {
  if (region.begin) return;
  region = {reserve<char>(kRegionBytes), reserve<Cell>(kRegionBytes / kWord * sizeof(Cell)),
            reserve<uint8_t>(kRegionBytes / kWord)};
  mprotect(device_begin(), kDeviceBytes, PROT_NONE);  // until expose_device_memory()
}

std::array<Cell, kWord>& byte_cells(size_t word) {
  Cell& cell = region.cells[word];
  if (cell.write.interval != kSplit) {
    split_words()[word].fill(cell);
    cell.write.interval = kSplit;
  }
  return split_words()[word];
}

void set_addressable(char* begin, size_t bytes) {
  for_words(begin, bytes, [](size_t word, uint8_t mask) { region.state[word] |= mask; });
}
void set_written(const char* begin, size_t bytes) {
  for_words(begin, bytes,
            [](size_t word, uint8_t mask) { region.state[word] |= uint8_t(mask << 4); });
}
void clear_state(char* begin, size_t bytes) {
  std::memset(region.state + offset(begin) / kWord, 0, round_up(bytes, kWord) / kWord);
}

size_t first_unwritten(const char* begin, size_t bytes) {
  size_t found = bytes;
  for_words(begin, bytes, [&](size_t word, uint8_t mask) {
    const unsigned missing = mask & ~(region.state[word] >> 4);
    if (missing != 0)
      found = std::min(found, word * kWord + size_t(__builtin_ctz(missing)) - offset(begin));
  });
  return found;
}

void copy_written(char* target, const char* source, size_t bytes) {
  if (first_unwritten(source, bytes) == bytes) return set_written(target, bytes);
  for (size_t i = 0; i < bytes; ++i) {
    const size_t from = offset(source) + i, to = offset(target) + i;
    const uint8_t bit = uint8_t(0x10 << to % kWord);
    uint8_t& state = region.state[to / kWord];
    if (region.state[from / kWord] >> (4 + from % kWord) & 1)
      state |= bit;
    else
      state &= uint8_t(~bit);
  }
}

char* allocate(size_t bytes, Owner owner) {
  make_region();
  // Bytes that belong to nobody lie before it, and nothing is aligned to more than 256.
  const size_t shift = 256 * (1 + ++made % 15);
  char* const room = find_room(zone_of(owner), round_up(shift + bytes, kPage));
  if (!room) return nullptr;
  char* const begin = room + shift;
  allocations()[begin] = {begin, bytes, owner, true};
  zone_of(owner).live += bytes;
  set_addressable(begin, bytes);
  // The host may write the others at any time, and nobody sees when.
  if (owner != Owner::device) set_written(begin, bytes);
  return begin;
}

bool deallocate(void* begin) {
  const auto found = allocations().find(static_cast<char*>(begin));
  if (found == allocations().end() || !found->second.live) return false;
  Allocation& a = found->second;
  a.live = false;
  zone_of(a.owner).live -= a.bytes;
  const size_t first = first_page(a), bytes = end_page(a) - first;
  const size_t word = first / kWord, words = bytes / kWord;
  split_words().erase(split_words().lower_bound(word), split_words().lower_bound(word + words));
  // Their pages read as zero again.
  madvise(region.begin + first, bytes, MADV_DONTNEED);
  madvise(region.cells + word, words * sizeof(Cell), MADV_DONTNEED);
  std::memset(region.state + word, 0, words);
  return true;
}

const Allocation* find_allocation(const void* address) {
  const Allocation* a = entry_of(static_cast<const char*>(address));
  return a && a->live ? a : nullptr;
}

std::string describe_address(const void* address) {
  const char* const p = static_cast<const char*>(address);
  auto next = allocations().upper_bound(p);
  if (next == allocations().begin()) return "memory before every allocation";
  const Allocation& a = std::prev(next)->second;
  const char* const kind = a.owner == Owner::device    ? "device memory"
                           : a.owner == Owner::managed ? "managed memory"
                                                       : "pinned memory";
  const size_t at = size_t(p - a.begin);
  if (at < a.bytes)
    return (a.live ? "" : "freed ") + std::string(kind) + ", byte " + std::to_string(at) + " of " +
           std::to_string(a.bytes);
  if (next != allocations().end() && next->first - p < int64_t(at - a.bytes))
    return std::to_string(next->first - p) + " bytes before an allocation of " +
           std::to_string(next->second.bytes);
  return std::to_string(at - a.bytes) + " bytes past the end of " + kind + " of " +
         std::to_string(a.bytes) + " bytes";
}

size_t allocated_bytes() { return device_zone.live; }

size_t device_bytes_used() { return device_zone.high - device_zone.begin; }

}  // namespace sim
