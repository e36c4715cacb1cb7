#include "kernels/cpu/matmul_blocks.h"

namespace decalign::inline DECALIGN_REAL::matmul_tasks {
namespace {

struct Backward {
  const MatmulShape& s;
  Groups groups;
  In x, dy;
  InOut dx;
  const real* packed;
  int64_t packed_stride;

  // dx of a block of rows and of k.
  void data_gradient(size_t leader, const Block& b, bool alone) const {
    for (size_t i = leader; i < (alone ? leader + 1 : groups.size()); ++i) {
      const MatmulGroup& g = groups[i];
      if (!same_rows(g, groups[leader])) continue;
      multiply(b.rows, s.n, b.columns, dy.data() + (g.y_row + b.row) * s.y_cols + g.y_col, s.y_cols,
               packed + int64_t(i) * packed_stride + b.column * s.n, nullptr,
               dx.data() + (g.x_row + b.row) * s.k + b.column, s.k, Store::add);
    }
  }

  // All rows' part in a block of a weight gradient, from every group that shares it.
  void weight_gradient(size_t first, const Block& b) const {
    for (size_t i = first; i < groups.size(); ++i) {
      const MatmulGroup& g = groups[i];
      if (g.dweight.data() != groups[first].dweight.data() || g.dweight.empty()) continue;
      add_outer_wide(g.rows, b.rows, b.columns, dy.data() + g.y_row * s.y_cols + g.y_col + b.row,
                     s.y_cols, x.data() + g.x_row * s.k + b.column, s.k,
                     g.dweight.data() + b.row * s.k + b.column, s.k);
    }
  }

  void bias_gradient(size_t first, int64_t column, int64_t columns) const {
    for (size_t i = first; i < groups.size(); ++i) {
      const MatmulGroup& g = groups[i];
      if (g.dbias.data() != groups[first].dbias.data() || g.dbias.empty()) continue;
      add_columns(g.rows, columns, dy.data() + g.y_row * s.y_cols + g.y_col + column, s.y_cols,
                  g.dbias.data() + column);
    }
  }
};

}  // namespace

void matmul_backward_wide(const Cpu& be, const MatmulShape& s, Groups groups, In x, In dy, InOut dx,
                          const real* packed, int64_t packed_stride) {
  const Backward call{s, groups, x, dy, dx, packed, packed_stride};
  if (!dx.empty() && row_ranges_separate(groups)) {
    for_blocks(be, groups, s.k,
               [&](size_t leader, const Block& b) { call.data_gradient(leader, b, false); });
  } else if (!dx.empty()) {
    for (size_t g = 0; g < groups.size(); ++g)
      for_blocks(be, groups.subspan(g, 1), s.k,
                 [&](size_t, const Block& b) { call.data_gradient(g, b, true); });
  }
  // The larger the block, the less often dy and x are read; but every thread wants one.
  const int64_t height = s.n * s.k >= 4 * kWide ? 2 * kBlock : kBlock;
  const int64_t width = s.n * s.k >= 8 * kWide ? 2 * kColumns : kColumns;
  const int64_t down = piece_count(s.n, height), across = piece_count(s.k, width);
  const int64_t pieces = down * across;
  // The first group with this gradient, if any, takes care of the others.
  const auto first = [&](size_t g, auto gradient) {
    const auto data = gradient(groups[g]);
    if (data.empty()) return false;
    for (size_t h = 0; h < g; ++h)
      if (gradient(groups[h]).data() == data.data()) return false;
    return true;
  };
  parallel_for(be, std::ssize(groups) * pieces, [&](int64_t task) {
    const size_t g = size_t(task / pieces);
    const int64_t i = task % pieces / across, j = task % across * width;
    const int64_t row = piece_begin(s.n, down, i), rows = piece_begin(s.n, down, i + 1) - row;
    if (first(g, [](const MatmulGroup& m) { return m.dweight; }))
      call.weight_gradient(g, {row, rows, j, std::min(s.k - j, width)});
    if (j == 0 && first(g, [](const MatmulGroup& m) { return m.dbias; }))
      call.bias_gradient(g, row, rows);
  });
}

}  // namespace decalign::inline DECALIGN_REAL::matmul_tasks
