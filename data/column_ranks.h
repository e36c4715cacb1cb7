// Exact order statistics of every column of a matrix, without copying or sorting it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace decalign {

/// Finds four order statistics of each column: two counting passes over the bits of the floats
/// (upper and lower half), a few columns at a time. Takes about 8 MB whatever the number of rows.
class ColumnRanks {
 public:
  static constexpr size_t kRanks = 4;

  /// `values` [rows, width] without NaN; each rank in [0, rows).
  ColumnRanks(std::span<const float> values, int64_t width, std::array<int64_t, kRanks> ranks);

  /// The value of ranks[which] among column `column` in ascending order.
  float value(int64_t column, size_t which) const {
    return found_[size_t(column) * kRanks + which];
  }

 private:
  void find_block(std::span<const float> values, size_t width, size_t first, size_t columns);

  std::array<int64_t, kRanks> ranks_;
  std::vector<float> found_;    // [width, kRanks]
  std::vector<int64_t> upper_;  // [columns, 2^16] counts of upper halves
  std::vector<int64_t> lower_;  // [columns, kRanks, 2^16] counts of lower halves
};

}  // namespace decalign
