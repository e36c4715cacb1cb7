#include "kernels/feed_forward.h"

#include <algorithm>

#include "kernels/check/feed_forward.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/scratch.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kBlock = 70;            // rows whose x, y and hidden values stay in cache
constexpr int64_t kColumns = 4 * kLanes;  // hidden columns whose gradient is alive at a time
constexpr int64_t kStrip = 192;           // rows per partial weight gradient, about
constexpr int64_t kMaxStrips = 8;         // partial weight gradients per group
constexpr int64_t kCombine = 1024;        // elements of a gradient per combining task

using Groups = std::span<const FeedForwardGroup>;

int64_t blocks(int64_t rows) { return piece_count(rows, kBlock); }
int64_t strips(int64_t rows) { return std::clamp<int64_t>(rows / kStrip, rows > 0, kMaxStrips); }
int64_t elements(int64_t n) { return int64_t(scratch_size(n) / sizeof(real)); }

// f(group, first row, rows, number of the piece among all) for every piece of every group's rows,
// in parallel.
template <class F>
void for_pieces(const Cpu& be, Groups groups, int64_t (*pieces)(int64_t), F f) {
  int64_t tasks = 0;
  for (const FeedForwardGroup& g : groups) tasks += pieces(g.rows);
  parallel_for(be, tasks, [&](int64_t task) {
    int64_t piece = task;
    for (size_t g = 0; g < groups.size(); ++g) {
      const int64_t rows = groups[g].rows, count = pieces(rows);
      if (piece < count) {
        const int64_t begin = piece_begin(rows, count, piece);
        return f(g, groups[g].row + begin, piece_begin(rows, count, piece + 1) - begin, task);
      }
      piece -= count;
    }
  });
}

// Elements [first, first + count) of h: h *= keep * scale.
void drop(const KeepStream& keep, int64_t first, int64_t count, real* h) {
  for (int64_t i0 = first; i0 < first + count; i0 += KeepRun::kCapacity) {
    const int64_t n = std::min(first + count - i0, KeepRun::kCapacity);
    const KeepRun run(keep, i0, n);
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t lanes = std::min(n - i, kLanes);
      const vreal v = load_partial(h + i0 + i, lanes) * keep.scale;
      store_partial(h + i0 + i, keep_lanes(uint32_t(run.at(i)), v), lanes);
    }
  }
}

// Where the pieces of the work space are: packed weights of every group, then, going back, a
// partial result of every strip.
struct Layout {
  int64_t first, second, packed;                 // packed weights of a group
  int64_t weight, bias1, bias2, block, partial;  // partial result of a strip
  explicit Layout(const FeedForwardShape& s)
      : first(elements(std::max(packed_size(s.width, s.hidden), packed_size(s.hidden, s.width)))),
        second(first),
        packed(first + second),
        weight(elements(s.hidden * s.width)),
        bias1(elements(s.hidden)),
        bias2(elements(s.width)),
        block(elements(kBlock * kColumns)),
        partial(2 * weight + bias1 + bias2 + 2 * block) {}
};

}  // namespace

size_t feed_forward_scratch_bytes(const Cpu&, const FeedForwardShape& s, Groups groups) {
  const Layout at(s);
  int64_t total = at.packed * std::ssize(groups);
  for (const FeedForwardGroup& g : groups) total += at.partial * strips(g.rows);
  return size_t(total) * sizeof(real);
}

void feed_forward_forward(const Cpu& be, const FeedForwardShape& s, Groups groups, In x, Out h,
                          Out y, Scratch scratch) {
  check_feed_forward_forward(s, groups, x, h, y, scratch,
                             feed_forward_scratch_bytes(be, s, groups));
  const Layout at(s);
  real* packed = carve(scratch, 0);
  parallel_for(be, 2 * std::ssize(groups), [&](int64_t task) {
    const FeedForwardGroup& g = groups[size_t(task / 2)];
    if (task % 2 == 0)
      pack_transposed(g.weight1.data(), s.width, s.width, s.hidden, packed + task * at.first);
    else
      pack_transposed(g.weight2.data(), s.hidden, s.hidden, s.width, packed + task * at.first);
  });
  const KeepStream keep(s.dropout);
  for_pieces(be, groups, blocks, [&](size_t i, int64_t row, int64_t rows, int64_t) {
    const real* weights = packed + int64_t(i) * at.packed;
    real* hidden = h.data() + row * s.hidden;
    multiply(rows, s.width, s.hidden, x.data() + row * s.width, s.width, weights,
             groups[i].bias1.data(), hidden, s.hidden, Store::relu);
    if (keep.threshold > 0) drop(keep, row * s.hidden, rows * s.hidden, h.data());
    multiply(rows, s.hidden, s.width, hidden, s.hidden, weights + at.first, groups[i].bias2.data(),
             y.data() + row * s.width, s.width, Store::overwrite);
  });
}

namespace {

// One backward call: its arrays and its work space.
struct Backward {
  const FeedForwardShape& s;
  Groups groups;
  In x, h, dy;
  InOut dx;
  Layout at;
  real* packed;
  real* partials;

  Backward(const FeedForwardShape& shape, Groups all, In x_, In h_, In dy_, InOut dx_,
           Scratch scratch)
      : s(shape), groups(all), x(x_), h(h_), dy(dy_), dx(dx_), at(shape) {
    packed = carve(scratch, at.packed * std::ssize(groups));
    partials = carve(scratch, 0);
  }

  // weight2 as [width, hidden], weight1 by blocks of hidden columns as [columns, width].
  void pack_weights(const FeedForwardGroup& g, real* weights) const {
    pack(g.weight2.data(), s.hidden, s.width, s.hidden, weights);
    for (int64_t j = 0; j < s.hidden && !dx.empty(); j += kColumns)
      pack(g.weight1.data() + j * s.width, s.width, std::min(s.hidden - j, kColumns), s.width,
           weights + at.first + packed_size(j, s.width));
  }

  // From `gradient` = dy w2, [rows, columns] like `from`, a block of h: dz in its place, a copy of
  // h in `value` and the column sums of dz added to `sums`. Rows of the copies are kColumns apart.
  void gate(int64_t rows, int64_t columns, const real* from, real* value, real* gradient,
            real* sums) const {
    const real scale = s.dropout.scale();
    const vreal zero{};
    for (int64_t j = 0; j < columns; j += kLanes) {
      const int64_t lanes = std::min(columns - j, kLanes);
      vreal sum{};
      for (int64_t r = 0; r < rows; ++r) {
        const vreal v = load_partial(from + r * s.hidden + j, lanes);
        const vreal d = v > zero ? load(gradient + r * kColumns + j) * scale : zero;
        store(value + r * kColumns + j, v);
        store(gradient + r * kColumns + j, d);
        sum += d;
      }
      store_partial(sums + j, load_partial(sums + j, lanes) + sum, lanes);
    }
  }

  // Rows [row, row + rows) of a group: everything that needs them, hidden columns in blocks.
  void block(const FeedForwardGroup& g, const real* weights, int64_t row, int64_t rows,
             real* partial) const {
    real* dweight2 = partial + at.weight;
    real* dbias1 = dweight2 + at.weight;
    real* dbias2 = dbias1 + at.bias1;
    real* value = dbias2 + at.bias2;
    real* gradient = value + at.block;
    const real* xs = x.data() + row * s.width;
    const real* dys = dy.data() + row * s.width;
    if (!g.dbias2.empty()) add_columns(rows, s.width, dys, s.width, dbias2);
    for (int64_t j = 0; j < s.hidden; j += kColumns) {
      const int64_t columns = std::min(s.hidden - j, kColumns);
      multiply(rows, s.width, columns, dys, s.width, weights + j * s.width, nullptr, gradient,
               kColumns, Store::overwrite);
      gate(rows, columns, h.data() + row * s.hidden + j, value, gradient, dbias1 + j);
      if (!g.dweight2.empty())
        add_outer(rows, s.width, columns, dys, s.width, value, kColumns, dweight2 + j, s.hidden);
      if (!g.dweight1.empty())
        add_outer(rows, columns, s.width, gradient, kColumns, xs, s.width, partial + j * s.width,
                  s.width);
      if (!dx.empty())
        multiply(rows, columns, s.width, gradient, kColumns,
                 weights + at.first + packed_size(j, s.width), nullptr, dx.data() + row * s.width,
                 s.width, Store::add);
    }
  }

  void run_strip(size_t i, int64_t row, int64_t rows, int64_t number) const {
    real* partial = partials + number * at.partial;
    std::fill_n(partial, at.partial - 2 * at.block, real(0));
    const int64_t count = blocks(rows);
    for (int64_t b = 0; b < count; ++b) {
      const int64_t begin = piece_begin(rows, count, b);
      block(groups[i], packed + int64_t(i) * at.packed, row + begin,
            piece_begin(rows, count, b + 1) - begin, partial);
    }
  }

  // Elements [begin, end) of every gradient: partial sums in the order of the groups and strips.
  void combine(int64_t begin, int64_t end) const {
    const auto add = [&](InOut sum, const real* part) {
      for (int64_t e = begin; e < std::min(end, std::ssize(sum)); ++e) sum[size_t(e)] += part[e];
    };
    const real* partial = partials;
    for (const FeedForwardGroup& g : groups)
      for (int64_t strip = 0; strip < strips(g.rows); ++strip, partial += at.partial) {
        add(g.dweight1, partial);
        add(g.dweight2, partial + at.weight);
        add(g.dbias1, partial + 2 * at.weight);
        add(g.dbias2, partial + 2 * at.weight + at.bias1);
      }
  }
};

}  // namespace

void feed_forward_backward(const Cpu& be, const FeedForwardShape& s, Groups groups, In x, In h,
                           In dy, InOut dx, Scratch scratch) {
  check_feed_forward_backward(s, groups, x, h, dy, dx, scratch,
                              feed_forward_scratch_bytes(be, s, groups));
  const Backward call(s, groups, x, h, dy, dx, scratch);
  parallel_for(be, std::ssize(groups), [&](int64_t g) {
    call.pack_weights(groups[size_t(g)], call.packed + g * call.at.packed);
  });
  for_pieces(be, groups, strips, [&](size_t i, int64_t row, int64_t rows, int64_t number) {
    call.run_strip(i, row, rows, number);
  });
  parallel_ranges(be, std::max({s.hidden * s.width, s.hidden, s.width}), kCombine,
                  [&](int64_t begin, int64_t end) { call.combine(begin, end); });
}

}  // namespace decalign::inline DECALIGN_REAL
