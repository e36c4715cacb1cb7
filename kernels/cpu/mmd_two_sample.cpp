#include "kernels/mmd_two_sample.h"

#include <algorithm>
#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/mmd_two_sample.h"
#include "kernels/cpu/mmd_tile.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using mmd_tile::kTile;

// Rows that a task takes of either side, a multiple of kTile: enough blocks for many threads, and
// blocks that stay in cache. Blocks do not straddle the samples.
struct Blocks {
  explicit Blocks(const MmdTwoSampleShape& s) : x_rows(s.x_rows), y_rows(s.y_rows) {
    const int64_t tiles = (x_rows + y_rows) / (32 * kTile);
    rows = kTile * std::clamp<int64_t>(std::min(tiles, 32768 / (kTile * (s.width + 1))), 1, 4);
    of_x = piece_count(x_rows, rows), count = of_x + piece_count(y_rows, rows);
  }
  int64_t x_rows, y_rows, rows, of_x, count;
};

struct Block {
  bool is_y;
  int64_t rows;
  const real *data, *packed;
  double *gradient, *value, *bandwidths;
};

struct Problem {
  const MmdTwoSampleShape& shape;
  const Blocks blocks;
  In x, y;
  bool pull_x, pull_y, pull_bandwidths;
  real *packed, scale[kMmdBandwidths], weight[kMmdBandwidths], slope[kMmdBandwidths];
  bool square[kMmdBandwidths];
  double *gradient, *value, *bandwidths;  // [n + m, d], [blocks], [blocks, L]

  Block block(int64_t i) const {
    const bool is_y = i >= blocks.of_x;
    const int64_t first = (is_y ? i - blocks.of_x : i) * blocks.rows;
    const int64_t rows = std::min(blocks.rows, (is_y ? blocks.y_rows : blocks.x_rows) - first);
    const int64_t at = (is_y ? blocks.x_rows : 0) + first, d = shape.width;
    return {is_y,
            rows,
            (is_y ? y : x).data() + first * d,
            packed + i * packed_size(d, blocks.rows),
            gradient + at * d,
            value + i,
            bandwidths + i * shape.bandwidths};
  }
};

void set_kernels(Problem& p, In bandwidths, In weights) {
  for (size_t l = 0; l < bandwidths.size(); ++l) {
    const real b = bandwidths[l];
    const double inverse = b > 0 ? 1 / double(b) : NAN;
    p.scale[l] = real(-0.5 * inverse);
    p.weight[l] = weights[l];
    p.slope[l] = real(double(weights[l]) * inverse);
    p.square[l] = l > 0 && is_half(b, bandwidths[l - 1]);
  }
}

vint lanes_between(int64_t begin, int64_t end) {
  vint lane;
  for (int i = 0; i < int(kLanes); ++i) lane[i] = lane_int(i);
  return (lane >= lane_int(begin)) & (lane < lane_int(end));
}

vreal keep(vint lanes, vreal v) { return (vreal)((vint)v & lanes); }

struct TileSums {
  Wide value, bandwidth[kMmdBandwidths];
};

// Squared distances [rows, columns] become slopes sum_l weights[l] k_l / bandwidths[l]; of a tile
// on the diagonal only j > i count.
void kernels_of(const Problem& p, int64_t rows, int64_t columns, bool diagonal, real* tile,
                TileSums& sums) {
  const int64_t L = p.shape.bandwidths;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t first = diagonal ? i + 1 : 0;
    real* row = tile + i * kTile;
    for (int64_t j = 0; j < columns; j += kLanes) {
      const bool all = first <= j && j + kLanes <= columns;
      const vint lanes =
          all ? ~vint{} : lanes_between(std::max<int64_t>(first - j, 0), columns - j);
      const vreal distance = load(row + j);
      vreal k{}, value{}, slope{};
      for (int64_t l = 0; l < L; ++l) {
        k = p.square[l] ? k * k : keep(lanes, vexp(distance * p.scale[l]));
        value += k * p.weight[l];
        slope += k * p.slope[l];
        if (p.pull_bandwidths) sums.bandwidth[l] += widen(k * distance);
      }
      sums.value += widen(value);
      store(row + j, slope);
    }
  }
}

// Every unordered pair of rows of two blocks, or of one.
void visit(const Problem& p, int64_t first, int64_t second, const TwoSampleFactors& factors) {
  const Block a = p.block(first), b = p.block(second);
  const double factor = a.is_y != b.is_y ? factors.between : a.is_y ? factors.y : factors.x;
  const bool pull_a = a.is_y ? p.pull_y : p.pull_x, pull_b = b.is_y ? p.pull_y : p.pull_x;
  const int64_t d = p.shape.width;
  alignas(64) real tile[kTile * kTile];
  TileSums sums;
  for (int64_t j = 0; j < b.rows; j += kTile)
    for (int64_t i = 0; i < (first == second ? j + 1 : a.rows); i += kTile) {
      const int64_t rows = std::min(kTile, a.rows - i), columns = std::min(kTile, b.rows - j);
      mmd_tile::all_distances(d, a.data + i * d, rows, b.packed + j * d, columns, tile);
      kernels_of(p, rows, columns, first == second && i == j, tile, sums);
      const mmd_tile::Pull to_a{
          d, columns, tile, kTile, 1, a.data + i * d, b.data + j * d, factor, a.gradient + i * d,
          0};
      const mmd_tile::Pull to_b{
          d, rows, tile, 1, kTile, b.data + j * d, a.data + i * d, factor, b.gradient + j * d, 0};
      if (pull_a) mmd_tile::pull_all(to_a, rows);
      if (pull_b) mmd_tile::pull_all(to_b, columns);
    }
  *a.value += factor * sum_lanes(sums.value);
  if (p.pull_bandwidths)
    for (int64_t l = 0; l < p.shape.bandwidths; ++l)
      a.bandwidths[l] += factor * sum_lanes(sums.bandwidth[l]);
}

// In every round each block meets one other, or itself: no two tasks of a round touch the same
// gradient, and each gradient's terms come in the order of the rounds.
void all_pairs(const Cpu& be, const Problem& p, const TwoSampleFactors& factors) {
  const int64_t blocks = p.blocks.count, seats = blocks + blocks % 2;
  parallel_for(be, blocks, [&](int64_t i) {
    const Block b = p.block(i);
    const int64_t d = p.shape.width;
    pack_transposed(b.data, d, d, b.rows, const_cast<real*>(b.packed));
    std::fill_n(b.gradient, (b.is_y ? p.pull_y : p.pull_x) ? b.rows * d : 0, 0.0);
    *b.value = 0;
    std::fill_n(b.bandwidths, p.shape.bandwidths, 0.0);
  });
  parallel_for(be, blocks, [&](int64_t i) { visit(p, i, i, factors); });
  for (int64_t round = 0; round + 1 < seats; ++round)
    parallel_for(be, seats / 2, [&](int64_t k) {
      const int64_t circle = seats - 1, i = (round + k) % circle,
                    j = k == 0 ? circle : (round + circle - k) % circle;
      if (std::max(i, j) < blocks) visit(p, std::min(i, j), std::max(i, j), factors);
    });
}

}  // namespace

size_t mmd_two_sample_scratch_bytes(const Cpu&, const MmdTwoSampleShape& s) {
  const Blocks blocks(s);
  return carve_bytes<real>(blocks.count * packed_size(s.width, blocks.rows)) +
         carve_bytes<double>((s.x_rows + s.y_rows) * s.width) + carve_bytes<double>(blocks.count) +
         carve_bytes<double>(blocks.count * s.bandwidths);
}

void mmd_two_sample_forward(const Cpu& be, const MmdTwoSampleShape& s, In x, In y, In bandwidths,
                            In weights, Out value, Out dx, Out dy, Out dbandwidths,
                            Scratch scratch) {
  check_mmd_two_sample(s, x, y, bandwidths, weights, value, dx, dy, dbandwidths, scratch,
                       mmd_two_sample_scratch_bytes(be, s));
  const TwoSampleFactors factors = two_sample_factors(s);
  Problem p{s,  Blocks(s), x,  y,  !dx.empty(), !dy.empty(), !dbandwidths.empty(), {}, {},
            {}, {},        {}, {}, {},          {}};
  set_kernels(p, bandwidths, weights);
  const int64_t size = (s.x_rows + s.y_rows) * s.width, L = s.bandwidths;
  p.packed = carve<real>(scratch, p.blocks.count * packed_size(s.width, p.blocks.rows));
  p.gradient = carve<double>(scratch, size);
  p.value = carve<double>(scratch, p.blocks.count);
  p.bandwidths = carve<double>(scratch, p.blocks.count * L);
  if (s.x_rows > 0 && s.y_rows > 0)
    all_pairs(be, p, factors);
  else
    std::fill_n(p.gradient, size, 0.0), std::fill_n(p.value, p.blocks.count, 0.0),
        std::fill_n(p.bandwidths, p.blocks.count * L, 0.0);

  double total = 0;
  for (int64_t l = 0; l < L; ++l) {
    total += factors.diagonal * double(weights[size_t(l)]);
    if (!(bandwidths[size_t(l)] > 0)) total = NAN;
  }
  for (int64_t i = 0; i < p.blocks.count; ++i) total += p.value[i];
  value[0] = real(total);
  for (size_t l = 0; l < dbandwidths.size(); ++l) {
    double sum = 0;
    for (int64_t i = 0; i < p.blocks.count; ++i) sum += p.bandwidths[i * L + int64_t(l)];
    const double b = double(bandwidths[l]);
    dbandwidths[l] = real(sum * double(weights[l]) / (2 * b * b));
  }
  const auto copy = [&](const double* from, Out to) {
    parallel_ranges(be, std::ssize(to), 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[size_t(i)] = real(from[i]);
    });
  };
  copy(p.gradient, dx);
  copy(p.gradient + s.x_rows * s.width, dy);
}

size_t mmd_median_scratch_bytes(const Cpu&, const MmdTwoSampleShape& s) {
  const int64_t rows = std::min(s.x_rows + s.y_rows, kMmdMedianRows);
  return carve_bytes<real>(rows * (rows - 1) / 2);
}

void mmd_median_bandwidth(const Cpu& be, const MmdTwoSampleShape& s, In x, In y, Out bandwidth,
                          Scratch scratch) {
  check_mmd_median(s, x, y, bandwidth, scratch, mmd_median_scratch_bytes(be, s));
  const int64_t all = s.x_rows + s.y_rows, rows = std::min(all, kMmdMedianRows);
  const int64_t pairs = rows * (rows - 1) / 2, d = s.width;
  real* const distance = carve<real>(scratch, pairs);
  const auto row = [&](int64_t i) {
    const int64_t at = rows < all ? i * all / rows : i;
    return at < s.x_rows ? x.data() + at * d : y.data() + (at - s.x_rows) * d;
  };
  parallel_for(be, rows, [&](int64_t i) {
    for (int64_t j = 0; j < i; ++j) {
      const real *a = row(i), *b = row(j);
      real sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t t = 0; t < d; ++t) sum += (a[t] - b[t]) * (a[t] - b[t]);
      distance[i * (i - 1) / 2 + j] = sum;
    }
  });
  bandwidth[0] = 1;
  if (pairs == 0) return;
  real* const middle = distance + (pairs - 1) / 2;
  std::nth_element(distance, middle, distance + pairs);
  double sum = 0;
  for (int64_t i = 0; i < pairs; ++i) sum += double(distance[i]);
  if (*middle > 0)
    bandwidth[0] = *middle;
  else if (sum > 0)
    bandwidth[0] = real(sum / double(pairs));
}

}  // namespace decalign::inline DECALIGN_REAL
