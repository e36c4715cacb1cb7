// Exact order statistics of every column of a matrix by counting.
#include "data/column_ranks.h"

#include <algorithm>
#include <bit>

namespace decalign {
namespace {

constexpr size_t kBlock = 4;  // columns at a time
constexpr size_t kBins = size_t(1) << 16;

/// Bits that sort as the floats do.
uint32_t sortable(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

float unsortable(uint32_t bits) {
  return std::bit_cast<float>((bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits);
}

/// The bin that holds `rank`; takes the counts before it off the rank.
uint32_t find_bin(std::span<const int64_t> counts, int64_t& rank) {
  uint32_t bin = 0;
  while (bin + 1 < counts.size() && rank >= counts[bin]) rank -= counts[bin++];
  return bin;
}

}  // namespace

ColumnRanks::ColumnRanks(std::span<const float> values, int64_t width,
                         std::array<int64_t, kRanks> ranks)
    : ranks_(ranks),
      found_(size_t(width) * kRanks),
      upper_(kBlock * kBins),
      lower_(kBlock * kRanks * kBins) {
  for (size_t first = 0; first < size_t(width); first += kBlock) {
    find_block(values, size_t(width), first, std::min(kBlock, size_t(width) - first));
  }
}

void ColumnRanks::find_block(std::span<const float> values, size_t width, size_t first,
                             size_t columns) {
  std::fill(upper_.begin(), upper_.end(), 0);
  std::fill(lower_.begin(), lower_.end(), 0);
  for (size_t row = 0; row < values.size(); row += width) {
    for (size_t c = 0; c < columns; ++c) {
      ++upper_[c * kBins + (sortable(values[row + first + c]) >> 16)];
    }
  }
  std::array<std::array<uint32_t, kRanks>, kBlock> bin{};
  std::array<std::array<int64_t, kRanks>, kBlock> rest{};
  for (size_t c = 0; c < columns; ++c) {
    for (size_t k = 0; k < kRanks; ++k) {
      rest[c][k] = ranks_[k];
      bin[c][k] = find_bin(std::span(upper_).subspan(c * kBins, kBins), rest[c][k]);
    }
  }
  for (size_t row = 0; row < values.size(); row += width) {
    for (size_t c = 0; c < columns; ++c) {
      const uint32_t bits = sortable(values[row + first + c]);
      for (size_t k = 0; k < kRanks; ++k) {
        if (bits >> 16 == bin[c][k]) ++lower_[(c * kRanks + k) * kBins + (bits & 0xffff)];
      }
    }
  }
  for (size_t c = 0; c < columns; ++c) {
    for (size_t k = 0; k < kRanks; ++k) {
      const auto counts = std::span(lower_).subspan((c * kRanks + k) * kBins, kBins);
      const uint32_t low = find_bin(counts, rest[c][k]);
      found_[(first + c) * kRanks + k] = unsortable(bin[c][k] << 16 | low);
    }
  }
}

}  // namespace decalign
