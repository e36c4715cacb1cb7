#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/check/matmul.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/scratch.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kBlock = 98;      // rows whose x, y and dz stay in the inner caches
constexpr int64_t kStrip = 384;     // rows per partial weight gradient, about
constexpr int64_t kMaxStrips = 16;  // partial weight gradients per group
constexpr int64_t kCombine = 1024;  // elements of a weight gradient per combining task

// A weight of this many elements is wide: tasks take blocks of columns, too, and add to blocks of
// its gradient themselves, where partial gradients would cost memory and time.
constexpr int64_t kWide = int64_t(1) << 17;
constexpr int64_t kColumns = 192;  // a block of columns; whole panels for every vector length

using Groups = std::span<const MatmulGroup>;

bool same_rows(const MatmulGroup& a, const MatmulGroup& b) {
  return a.x_row == b.x_row && a.rows == b.rows;
}

// A group leads those after it that read the same rows of x; the others before it do not.
bool leads(Groups groups, size_t g) {
  if (groups[g].rows == 0) return false;
  for (size_t h = 0; h < g; ++h)
    if (same_rows(groups[h], groups[g])) return false;
  return true;
}

// Rows of x are read by groups of the same row range only, so that row ranges are independent.
bool row_ranges_separate(Groups groups) {
  for (const MatmulGroup& g : groups)
    for (const MatmulGroup& h : groups)
      if (!same_rows(g, h) && g.x_row < h.x_row + h.rows && h.x_row < g.x_row + g.rows)
        return false;
  return true;
}

bool wide(const MatmulShape& s) { return !s.relu && s.n * s.k >= kWide; }
int64_t column_blocks(int64_t n) { return piece_count(n, kColumns); }

int64_t strips(int64_t rows) { return std::clamp<int64_t>(rows / kStrip, rows > 0, kMaxStrips); }

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

// y rows [0, rows) x n columns, starting at row `row`, column `col` of y: y *= keep * scale.
void drop_block(const KeepStream& keep, const MatmulShape& s, int64_t rows, int64_t row,
                int64_t col, Out y) {
  for (int64_t r = row; r < row + rows; ++r)
    for (int64_t j0 = 0; j0 < s.n; j0 += KeepRun::kCapacity) {
      const int64_t first = r * s.y_cols + col + j0, count = std::min(s.n - j0, KeepRun::kCapacity);
      const KeepRun run(keep, first, count);
      real* p = y.data() + first;
      int64_t j = 0;
      for (; j + kLanes <= count; j += kLanes)
        store(p + j, keep_lanes(uint32_t(run.at(j)), load(p + j) * keep.scale));
      if (j < count)
        store_partial(p + j,
                      keep_lanes(uint32_t(run.at(j)), load_partial(p + j, count - j) * keep.scale),
                      count - j);
    }
}

}  // namespace

size_t matmul_scratch_bytes(const Cpu&, const MatmulShape& s, Groups groups) {
  const size_t forward = scratch_size(packed_size(s.k, s.n)) * groups.size();
  size_t backward = scratch_size(packed_size(s.n, s.k)) * groups.size();
  for (const MatmulGroup& g : groups)
    if (!wide(s))
      backward += size_t(strips(g.rows)) * (scratch_size(s.n * s.k) + scratch_size(s.n) +
                                            (s.relu ? scratch_size(kBlock * s.n) : 0));
  return std::max(forward, backward);
}

void matmul_forward(const Cpu& be, const MatmulShape& s, Groups groups, In x, Out y,
                    Scratch scratch) {
  check_matmul_forward(s, groups, x, y, scratch, matmul_scratch_bytes(be, s, groups));
  const int64_t stride = int64_t(scratch_size(packed_size(s.k, s.n)) / sizeof(real));
  real* packed = carve(scratch, 0);
  for_column_blocks(be, std::ssize(groups), s.n, [&](int64_t g, int64_t j, int64_t columns) {
    pack_transposed(groups[size_t(g)].weight.data() + j * s.k, s.k, s.k, columns,
                    packed + g * stride + j * s.k);
  });
  const KeepStream keep(s.dropout);
  for_blocks(be, groups, wide(s) ? s.n : 0, [&](size_t leader, const Block& b) {
    const int64_t begin = b.row, rows = b.rows, columns = wide(s) ? b.columns : s.n;
    for (size_t i = leader; i < groups.size(); ++i) {
      const MatmulGroup& g = groups[i];
      if (!same_rows(g, groups[leader])) continue;
      multiply(rows, s.k, columns, x.data() + (g.x_row + begin) * s.k, s.k,
               packed + int64_t(i) * stride + b.column * s.k,
               g.bias.empty() ? nullptr : g.bias.data() + b.column,
               y.data() + (g.y_row + begin) * s.y_cols + g.y_col + b.column, s.y_cols,
               s.relu ? Store::relu : Store::overwrite);
      if (keep.threshold > 0) drop_block(keep, s, rows, g.y_row + begin, g.y_col, y);
    }
  });
}

namespace {

// One backward call: its arrays and where the pieces of its work space are.
struct Backward {
  const MatmulShape& s;
  Groups groups;
  In x, y, dy;
  InOut dx;
  real* packed;
  int64_t packed_stride;
  real* partials;
  int64_t weight_size, bias_size, dz_size, partial_stride;

  Backward(const MatmulShape& shape, Groups all, In x_, In y_, In dy_, InOut dx_, Scratch scratch)
      : s(shape), groups(all), x(x_), y(y_), dy(dy_), dx(dx_) {
    const auto elements = [](int64_t n) { return int64_t(scratch_size(n) / sizeof(real)); };
    packed_stride = elements(packed_size(s.n, s.k));
    weight_size = elements(s.n * s.k);
    bias_size = elements(s.n);
    dz_size = s.relu ? elements(kBlock * s.n) : 0;
    partial_stride = weight_size + bias_size + dz_size;
    packed = carve(scratch, packed_stride * std::ssize(groups));
    partials = carve(scratch, 0);
  }

  // Partial weight gradient, partial bias gradient and dz block of a strip, one after the other.
  real* partial(size_t group, int64_t strip) const {
    for (size_t g = 0; g < group; ++g) strip += strips(groups[g].rows);
    return partials + strip * partial_stride;
  }

  // Rows [begin, begin + rows) of group g: everything that needs dz, while it is in cache.
  void block(size_t i, int64_t begin, int64_t rows, real* partial) const {
    const MatmulGroup& g = groups[i];
    const int64_t at = (g.y_row + begin) * s.y_cols + g.y_col;
    const real* dz = dy.data() + at;
    int64_t ldz = s.y_cols;
    if (s.relu) {
      real* masked = partial + weight_size + bias_size;
      const real scale = s.dropout.scale();
      const vreal zero{};
      for (int64_t r = 0; r < rows; ++r) {
        const real* from = dz + r * s.y_cols;
        const real* result = y.data() + at + r * s.y_cols;
        for (int64_t j = 0; j < s.n; j += kLanes) {
          const int64_t count = std::min(s.n - j, kLanes);
          const vreal v = load_partial(from + j, count) * scale;
          store_partial(masked + r * s.n + j, load_partial(result + j, count) > zero ? v : zero,
                        count);
        }
      }
      dz = masked;
      ldz = s.n;
    }
    const real* xs = x.data() + (g.x_row + begin) * s.k;
    if (!dx.empty())
      multiply(rows, s.n, s.k, dz, ldz, packed + int64_t(i) * packed_stride, nullptr,
               dx.data() + (g.x_row + begin) * s.k, s.k, Store::add);
    if (!g.dweight.empty()) add_outer(rows, s.n, s.k, dz, ldz, xs, s.k, partial, s.k);
    if (!g.dbias.empty()) add_columns(rows, s.n, dz, ldz, partial + weight_size);
  }

  // Strip `strip` of the rows that group `leader` and, unless `alone`, its followers read.
  void run_strip(size_t leader, int64_t strip, int64_t count, bool alone) const {
    const int64_t total = groups[leader].rows, first = piece_begin(total, count, strip),
                  rows = piece_begin(total, count, strip + 1) - first;
    const int64_t blocks = piece_count(rows, kBlock);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t r = piece_begin(rows, blocks, b), height = piece_begin(rows, blocks, b + 1) - r;
      for (size_t i = leader; i < (alone ? leader + 1 : groups.size()); ++i) {
        if (!same_rows(groups[i], groups[leader])) continue;
        real* mine = partial(i, strip);
        if (b == 0) std::fill_n(mine, weight_size + bias_size, real(0));
        block(i, first + r, height, mine);
      }
    }
  }

  // Elements [begin, end) of every weight and bias gradient: partial sums in the order of the
  // groups and strips.
  void combine(int64_t begin, int64_t end) const {
    for (size_t i = 0; i < groups.size(); ++i) {
      const MatmulGroup& g = groups[i];
      for (int64_t strip = 0; strip < strips(g.rows); ++strip) {
        const real* p = partial(i, strip);
        const int64_t in_weight = std::min(end, std::ssize(g.dweight));
        for (int64_t e = begin; e < in_weight; ++e) g.dweight[size_t(e)] += p[e];
        const int64_t in_bias = std::min(end, std::ssize(g.dbias));
        for (int64_t e = begin; e < in_bias; ++e) g.dbias[size_t(e)] += p[weight_size + e];
      }
    }
  }

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

  // Every gradient of a wide weight, in tasks that write what no other writes.
  void run_wide(const Cpu& be) const {
    if (!dx.empty() && row_ranges_separate(groups)) {
      for_blocks(be, groups, s.k,
                 [&](size_t leader, const Block& b) { data_gradient(leader, b, false); });
    } else if (!dx.empty()) {
      for (size_t g = 0; g < groups.size(); ++g)
        for_blocks(be, groups.subspan(g, 1), s.k,
                   [&](size_t, const Block& b) { data_gradient(g, b, true); });
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
        weight_gradient(g, {row, rows, j, std::min(s.k - j, width)});
      if (j == 0 && first(g, [](const MatmulGroup& m) { return m.dbias; }))
        bias_gradient(g, row, rows);
    });
  }
};

}  // namespace

void matmul_backward(const Cpu& be, const MatmulShape& s, Groups groups, In x, In y, In dy,
                     InOut dx, Scratch scratch) {
  check_matmul_backward(s, groups, x, y, dy, dx, scratch, matmul_scratch_bytes(be, s, groups));
  const Backward call(s, groups, x, y, dy, dx, scratch);
  if (!dx.empty())
    for_column_blocks(be, std::ssize(groups), s.k, [&](int64_t g, int64_t j, int64_t columns) {
      pack(groups[size_t(g)].weight.data() + j, s.k, s.n, columns,
           call.packed + g * call.packed_stride + j * s.n);
    });
  if (wide(s)) return call.run_wide(be);
  if (row_ranges_separate(groups)) {
    for_pieces(be, groups, strips, [&](size_t leader, int64_t strip, int64_t count) {
      call.run_strip(leader, strip, count, false);
    });
  } else {  // row ranges that overlap partly: one group after the other
    for (size_t g = 0; g < groups.size(); ++g) {
      const int64_t count = strips(groups[g].rows);
      parallel_for(be, count, [&](int64_t strip) { call.run_strip(g, strip, count, true); });
    }
  }
  parallel_ranges(be, std::max(s.n * s.k, s.n), kCombine,
                  [&](int64_t begin, int64_t end) { call.combine(begin, end); });
}

}  // namespace decalign::inline DECALIGN_REAL
