#include "autograd/arena.h"

#include <algorithm>

namespace decalign::inline DECALIGN_REAL {
namespace {
constexpr size_t kAlignment = 64, kFirstBlock = size_t(1) << 20;
}  // namespace

void Arena::Free::operator()(std::byte* p) const { device.release(p, size); }

Arena::Block Arena::make_block(size_t size) {
  ++generation_;
  return {{device_.allocate(size), Free{device_, size}}, size, 0};
}

std::span<std::byte> Arena::bytes(size_t n) {
  const size_t rounded = (n + kAlignment - 1) / kAlignment * kAlignment;
  if (blocks_.empty() || blocks_.back().size - blocks_.back().used < rounded)
    blocks_.push_back(make_block(std::max({rounded, kFirstBlock, capacity()})));
  Block& block = blocks_.back();
  std::byte* start = block.memory.get() + block.used;
  block.used += rounded;
  return {start, n};
}

std::span<std::byte> Arena::rest() const {
  if (blocks_.empty()) return {};
  const Block& block = blocks_.back();
  return {block.memory.get() + block.used, block.size - block.used};
}

void Arena::reset() {
  if (blocks_.size() > 1) {
    size_t used = 0;
    for (const Block& block : blocks_) used += block.used;
    blocks_.clear();
    blocks_.push_back(make_block(used));
  }
  if (!blocks_.empty()) blocks_.back().used = 0;
}

size_t Arena::capacity() const {
  size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

}  // namespace decalign::inline DECALIGN_REAL
