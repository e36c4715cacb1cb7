#include "tests/sim/checker.h"
#include "tests/sim/machine.h"
#include "tests/sim/memory.h"

namespace sim {
namespace {

constexpr size_t kGap = 128;  // between variables: an access beyond one is in none
constexpr size_t kStaticLimit = 48 * 1024, kLimit = 227 * 1024;

char* place(Block& block, size_t bytes, size_t alignment, const void* key, const char* name) {
  const size_t at = (block.shared_used + alignment - 1) / alignment * alignment;
  if (block.shared_bytes + bytes > kLimit || at + bytes + kGap > kSharedBytes)
    fail("shared memory: " + std::to_string(block.shared_bytes + bytes) +
         " bytes, a block has at most " + std::to_string(kLimit));
  char* const begin = shared_begin() + at;
  block.shared_used = at + bytes + kGap;
  block.shared_bytes += bytes;
  block.shared.push_back({key, name, begin, bytes});
  set_addressable(begin, bytes);
  return begin;
}

}  // namespace

void start_shared_memory(Block& block, size_t dynamic_bytes) {
  if (block.shared_used > 0) clear_state(shared_begin(), block.shared_used);
  block.shared.clear();
  block.shared_used = block.shared_bytes = block.static_bytes = 0;
  place(block, dynamic_bytes, 128, nullptr, "dynamic shared memory");
}

void* shared_variable(SharedKey& key, size_t bytes, size_t alignment, const char* name) {
  Block& block = machine.block;
  if (key.block == block.serial) return key.memory;
  const Unchecked guard;
  block.static_bytes += bytes;
  if (block.static_bytes > kStaticLimit)
    fail("shared memory: " + std::to_string(block.static_bytes) +
         " bytes of declared variables, a kernel has at most " + std::to_string(kStaticLimit));
  key.block = block.serial;
  return key.memory = place(block, bytes, alignment, &key, name);
}

void* dyn_shared(size_t) { return machine.block.shared.front().begin; }

const SharedVariable* shared_variable_at(const char* address) {
  const SharedVariable* nearest = nullptr;
  for (const SharedVariable& v : machine.block.shared)
    if (v.begin <= address && (!nearest || v.begin >= nearest->begin)) nearest = &v;
  return nearest;
}

}  // namespace sim
