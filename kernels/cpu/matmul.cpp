#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/check/matmul.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/matmul_blocks.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/scratch.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace matmul_tasks;

constexpr int64_t kStrip = 384;     // rows per partial weight gradient, about
constexpr int64_t kMaxStrips = 16;  // partial weight gradients per group
constexpr int64_t kCombine = 1024;  // elements of a weight gradient per combining task

int64_t strips(int64_t rows) { return std::clamp<int64_t>(rows / kStrip, rows > 0, kMaxStrips); }

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
  if (wide(s))
    return matmul_backward_wide(be, s, groups, x, dy, dx, call.packed, call.packed_stride);
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
