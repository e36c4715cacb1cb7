#include "kernels/layer_norm.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/layer_norm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kTogether = 8;  // rows whose parts of a weight gradient are summed up first
constexpr int64_t kRows = 64;     // rows per task and per partial weight gradient

using Groups = std::span<const LayerNormGroup>;

// f(group, begin, end) for the parts of rows [begin, end) that lie in one group.
template <class F>
void split(Groups groups, int64_t begin, int64_t end, F f) {
  for (const LayerNormGroup& g : groups) {
    const int64_t low = std::max(begin, g.row), high = std::min(end, g.row + g.rows);
    if (low < high) f(g, low, high);
  }
}

// sum = x + drop(z) for count elements from element `first` on.
void residual(const KeepStream& keep, int64_t first, int64_t count, const real* x, const real* z,
              real* sum) {
  for (int64_t i0 = 0; i0 < count; i0 += KeepRun::kCapacity) {
    const int64_t n = std::min(count - i0, KeepRun::kCapacity);
    if (keep.threshold == 0) {
      for (int64_t i = i0; i < i0 + n; ++i) sum[i] = x[i] + z[i];
      continue;
    }
    const KeepRun bits(keep, first + i0, n);
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t lanes = std::min(n - i, kLanes), at = i0 + i;
      const vreal v = keep_lanes(uint32_t(bits.at(i)), load_partial(z + at, lanes) * keep.scale);
      store_partial(sum + at, load_partial(x + at, lanes) + v, lanes);
    }
  }
}

// y = (r - mean) * rstd * weight + bias for one row; stats receives mean and rstd.
void normalise(int64_t width, double eps, const real* r, const real* weight, const real* bias,
               real* stats, real* y) {
  vreal total{};
  for (int64_t j = 0; j < width; j += kLanes)
    total += load_partial(r + j, std::min(width - j, kLanes));
  const real mean = sum_lanes(total) / real(width);
  vreal squares{};
  for (int64_t j = 0; j < width; j += kLanes) {
    const int64_t lanes = std::min(width - j, kLanes);
    const vreal centred = load_partial(r + j, lanes, mean) - mean;
    squares += centred * centred;
  }
  const real rstd = real(1) / std::sqrt(sum_lanes(squares) / real(width) + real(eps));
  stats[0] = mean;
  stats[1] = rstd;
  for (int64_t j = 0; j < width; j += kLanes) {
    const int64_t lanes = std::min(width - j, kLanes);
    const vreal xhat = (load_partial(r + j, lanes) - mean) * rstd;
    store_partial(y + j, xhat * load_partial(weight + j, lanes) + load_partial(bias + j, lanes),
                  lanes);
  }
}

}  // namespace

void layer_norm_forward(const Cpu& be, const LayerNormShape& s, Groups groups, In x, In z, Out sum,
                        Out stats, Out y) {
  check_layer_norm_forward(s, groups, x, z, sum, stats, y);
  const KeepStream keep(s.dropout);
  parallel_ranges(be, s.rows, kRows, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * s.width, count = (end - begin) * s.width;
    if (z.empty())
      std::copy_n(x.data() + at, count, sum.data() + at);
    else
      residual(keep, at, count, x.data() + at, z.data() + at, sum.data() + at);
    split(groups, begin, end, [&](const LayerNormGroup& g, int64_t low, int64_t high) {
      for (int64_t r = low; r < high; ++r)
        normalise(s.width, s.eps, sum.data() + r * s.width, g.weight.data(), g.bias.data(),
                  stats.data() + 2 * r, y.data() + r * s.width);
    });
  });
}

namespace {

// Rows [0, rows), at most kTogether: dweight += dy * xhat, dbias += dy. Few rows at a time, so that
// rounding errors of long sums stay small.
void add_weight_gradient(int64_t rows, int64_t width, const real* r, const real* stats,
                         const real* dy, real* dweight, real* dbias) {
  for (int64_t j = 0; j < width; j += kLanes) {
    const int64_t lanes = std::min(width - j, kLanes);
    vreal along{}, sum{};
    for (int64_t i = 0; i < rows; ++i) {
      const vreal xhat = (load_partial(r + i * width + j, lanes) - stats[2 * i]) * stats[2 * i + 1];
      const vreal d = load_partial(dy + i * width + j, lanes);
      along += d * xhat;
      sum += d;
    }
    store_partial(dweight + j, load_partial(dweight + j, lanes) + along, lanes);
    store_partial(dbias + j, load_partial(dbias + j, lanes) + sum, lanes);
  }
}

// dr = rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)), dxhat = dy * weight; dx += dr,
// dz += dr * mask. Either may be null; bits may be null.
void add_row_gradient(int64_t width, const real* r, const real* stats, const real* dy,
                      const real* weight, real* dx, real* dz, const KeepStream& keep,
                      int64_t first) {
  vreal total{}, product{};
  for (int64_t j = 0; j < width; j += kLanes) {
    const int64_t lanes = std::min(width - j, kLanes);
    const vreal xhat = (load_partial(r + j, lanes) - stats[0]) * stats[1];
    const vreal dxhat = load_partial(dy + j, lanes) * load_partial(weight + j, lanes);
    total += dxhat;
    product += dxhat * xhat;
  }
  const real mean = sum_lanes(total) / real(width), along = sum_lanes(product) / real(width);
  for (int64_t j0 = 0; j0 < width; j0 += KeepRun::kCapacity) {
    const int64_t n = std::min(width - j0, KeepRun::kCapacity);
    const auto piece = [&](auto bits) {
      for (int64_t j = j0; j < j0 + n; j += kLanes) {
        const int64_t lanes = std::min(j0 + n - j, kLanes);
        const vreal xhat = (load_partial(r + j, lanes) - stats[0]) * stats[1];
        const vreal dxhat = load_partial(dy + j, lanes) * load_partial(weight + j, lanes);
        const vreal dr = (dxhat - mean - xhat * along) * stats[1];
        if (dx) store_partial(dx + j, load_partial(dx + j, lanes) + dr, lanes);
        if (dz) store_partial(dz + j, load_partial(dz + j, lanes) + bits(j - j0, dr), lanes);
      }
    };
    if (keep.threshold > 0 && dz) {
      const KeepRun run(keep, first + j0, n);
      piece([&](int64_t j, vreal v) { return keep_lanes(uint32_t(run.at(j)), v * keep.scale); });
    } else {
      piece([](int64_t, vreal v) { return v; });
    }
  }
}

}  // namespace

size_t layer_norm_scratch_bytes(const Cpu&, const LayerNormShape& s) {
  return carve_bytes<double>(2 * s.width) +
         carve_bytes<real>((s.rows + kRows - 1) / kRows * 2 * s.width);
}

void layer_norm_backward(const Cpu& be, const LayerNormShape& s, Groups groups, In sum, In stats,
                         In dy, InOut dx, InOut dz, Scratch scratch) {
  check_layer_norm_backward(s, groups, sum, stats, dy, dx, dz, scratch,
                            layer_norm_scratch_bytes(be, s));
  const KeepStream keep(s.dropout);
  double* totals = carve<double>(scratch, 2 * s.width);
  real* partials = carve<real>(scratch, 0);
  const auto at = [&](auto& array, int64_t row) {
    return array.empty() ? nullptr : array.data() + row * s.width;
  };
  const auto add_weights = [&](int64_t begin, int64_t end, real* dweight, real* dbias) {
    for (int64_t r = begin; r < end; r += kTogether)
      add_weight_gradient(std::min(end - r, kTogether), s.width, at(sum, r), stats.data() + 2 * r,
                          at(dy, r), dweight, dbias);
  };
  // A chunk that lies in one group leaves its part of that group's gradients in `partials`.
  parallel_ranges(be, s.rows, kRows, [&](int64_t begin, int64_t end) {
    split(groups, begin, end, [&](const LayerNormGroup& g, int64_t low, int64_t high) {
      for (int64_t r = low; r < high; ++r)
        if (!dx.empty() || !dz.empty())
          add_row_gradient(s.width, at(sum, r), stats.data() + 2 * r, at(dy, r), g.weight.data(),
                           at(dx, r), at(dz, r), keep, r * s.width);
      if (low != begin || high != end || (g.dweight.empty() && g.dbias.empty())) return;
      real* partial = partials + begin / kRows * 2 * s.width;
      std::fill_n(partial, 2 * s.width, real(0));
      add_weights(low, high, partial, partial + s.width);
    });
  });
  // The chunks' parts in order, in double. A chunk on a border is summed up here, in its first
  // partial.
  for (const LayerNormGroup& g : groups) {
    if (g.dweight.empty() && g.dbias.empty()) continue;
    std::fill_n(totals, 2 * s.width, 0.0);
    for (int64_t low = g.row, high; low < g.row + g.rows; low = high) {
      const int64_t chunk = low / kRows, chunk_end = std::min(s.rows, (chunk + 1) * kRows);
      high = std::min(chunk_end, g.row + g.rows);
      real* partial = partials + chunk * 2 * s.width;
      if (low != chunk * kRows || high != chunk_end) {
        std::fill_n(partial, 2 * s.width, real(0));
        add_weights(low, high, partial, partial + s.width);
      }
      for (int64_t j = 0; j < 2 * s.width; ++j) totals[j] += double(partial[j]);
    }
    for (size_t j = 0; j < g.dweight.size(); ++j)
      g.dweight[j] = real(double(g.dweight[j]) + totals[j]);
    for (size_t j = 0; j < g.dbias.size(); ++j)
      g.dbias[j] = real(double(g.dbias[j]) + totals[size_t(s.width) + j]);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
