// How the work of a matmul is cut into tasks; the way back of a wide weight.
#pragma once

#include <algorithm>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/matmul.h"

namespace decalign::inline DECALIGN_REAL::matmul_tasks {

constexpr int64_t kBlock = 98;  // rows whose x, y and dz stay in the inner caches

// A weight of this many elements is wide: tasks take blocks of columns, too, and add to blocks of
// its gradient themselves, where partial gradients would cost memory and time.
constexpr int64_t kWide = int64_t(1) << 17;
constexpr int64_t kColumns = 192;  // a block of columns; whole panels for every vector length

using Groups = std::span<const MatmulGroup>;

inline bool same_rows(const MatmulGroup& a, const MatmulGroup& b) {
  return a.x_row == b.x_row && a.rows == b.rows;
}

// A group leads those after it that read the same rows of x; the others before it do not.
inline bool leads(Groups groups, size_t g) {
  if (groups[g].rows == 0) return false;
  for (size_t h = 0; h < g; ++h)
    if (same_rows(groups[h], groups[g])) return false;
  return true;
}

// Rows of x are read by groups of the same row range only, so that row ranges are independent.
inline bool row_ranges_separate(Groups groups) {
  for (const MatmulGroup& g : groups)
    for (const MatmulGroup& h : groups)
      if (!same_rows(g, h) && g.x_row < h.x_row + h.rows && h.x_row < g.x_row + g.rows)
        return false;
  return true;
}

inline bool wide(const MatmulShape& s) { return !s.relu && s.n * s.k >= kWide; }
inline int64_t column_blocks(int64_t n) { return piece_count(n, kColumns); }

// f(leader, piece, pieces) for every leading group and every piece of its rows, in parallel.
template <class Pieces, class F>
void for_pieces(const Cpu& be, Groups groups, Pieces pieces, F f) {
  int64_t tasks = 0;
  for (size_t g = 0; g < groups.size(); ++g)
    if (leads(groups, g)) tasks += pieces(groups[g].rows);
  parallel_for(be, tasks, [&](int64_t task) {
    for (size_t g = 0; g < groups.size(); ++g) {
      if (!leads(groups, g)) continue;
      const int64_t count = pieces(groups[g].rows);
      if (task < count) return f(g, task, count);
      task -= count;
    }
  });
}

// Rows `row` .. of a group's rows and columns `column` .. of its result.
struct Block {
  int64_t row, rows, column, columns;
};

// f(leader, block) for every leading group and every block of its rows times `columns` columns (0:
// not cut), in parallel.
template <class F>
void for_blocks(const Cpu& be, Groups groups, int64_t columns, F f) {
  const int64_t across = std::max<int64_t>(column_blocks(columns), 1);
  const auto pieces = [&](int64_t rows) { return piece_count(rows, kBlock) * across; };
  for_pieces(be, groups, pieces, [&](size_t leader, int64_t piece, int64_t count) {
    const int64_t total = groups[leader].rows, down = count / across;
    const int64_t row = piece_begin(total, down, piece / across),
                  column = piece % across * kColumns;
    f(leader, Block{row, piece_begin(total, down, piece / across + 1) - row, column,
                    std::min(columns - column, kColumns)});
  });
}

// f(i, first, columns) for i < n and every block of columns, in parallel.
template <class F>
void for_column_blocks(const Cpu& be, int64_t n, int64_t columns, F f) {
  const int64_t across = column_blocks(columns);
  parallel_for(be, n * across, [&](int64_t task) {
    const int64_t first = task % across * kColumns;
    f(task / across, first, std::min(columns - first, kColumns));
  });
}

/// Every gradient of wide weights, in tasks that write what no other writes. Group g's weight lies
/// packed at packed + g * packed_stride.
void matmul_backward_wide(const Cpu&, const MatmulShape&, Groups, In x, In dy, InOut dx,
                          const real* packed, int64_t packed_stride);

}  // namespace decalign::inline DECALIGN_REAL::matmul_tasks
