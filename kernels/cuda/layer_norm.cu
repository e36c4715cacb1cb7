#include "kernels/carve.h"
#include "kernels/check/layer_norm.h"
#include "kernels/cuda/dropout_keep.h"
#include "kernels/cuda/last_block.h"
#include "kernels/cuda/reduce.h"
#include "kernels/layer_norm.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kChunk = 32;   // rows per block, and per partial weight gradient
constexpr int kGroups = 16;  // groups per launch

struct Group {
  int64_t row, end;
  int first_block;  // of this group's chunks in the launch
  const real *weight, *bias;
  real *dweight, *dbias;
};
using Groups = ParameterList<Group, kGroups>;

// The group of a block: the last one that starts at or before it.
__device__ const Group& group_of(const Groups& groups, int block) {
  int g = 0;
  while (g + 1 < groups.count && groups.item[g + 1].first_block <= block) ++g;
  return groups.item[g];
}

// A warp per row, a lane per column modulo 32. Up to 32 kItems columns the row stays in registers;
// kItems = 0: any width, the row is read again from where this lane wrote it.
template <int kItems>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ Groups groups, int64_t width, real eps,
                   DeviceDropout dropout, const real* x, const real* z, real* sum, real* stats,
                   real* y) {
  const Group& group = group_of(groups, int(blockIdx.x));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = group.row + int64_t(int(blockIdx.x) - group.first_block) * kChunk;
  const int64_t end = min(begin + kChunk, group.end);
  const uint64_t seed = dropout.threshold ? dropout.state->seed : 0;
  const uint64_t step = dropout.threshold ? dropout.state->step : 0;
  for (int64_t r = begin + warp; r < end; r += kWarps) {
    const int64_t at = r * width;
    real row[kItems ? kItems : 1];
    real total = 0;
    const auto first = [&](int64_t j) {
      real v = x[at + j];
      if (z) {
        real d = z[at + j];
        if (dropout.threshold) {
          const uint64_t e = uint64_t(at + j);
          d = device_keep_bits(dropout, seed, step, e / 8) >> (e % 8) & 1 ? d * dropout.scale
                                                                          : real(0);
        }
        v += d;
      }
      sum[at + j] = v;
      total += v;
      return v;
    };
    const auto for_columns = [&](auto&& f) {
      if constexpr (kItems > 0) {
#pragma unroll
        for (int i = 0; i < kItems; ++i)
          if (lane + 32 * i < width) f(lane + 32 * i, row[i]);
      } else {
        for (int64_t j = lane; j < width; j += 32) f(j, sum[at + j]);
      }
    };
    if constexpr (kItems > 0) {
      for_columns([&](int64_t j, real& v) { v = first(j); });
    } else {
      for (int64_t j = lane; j < width; j += 32) first(j);
    }
    const real mean = warp_sum(total) / real(width);
    real squares = 0;
    for_columns([&](int64_t, const real& v) { squares += (v - mean) * (v - mean); });
    const real rstd = 1 / sqrt(warp_sum(squares) / real(width) + eps);
    for_columns([&](int64_t j, const real& v) {
      y[at + j] = (v - mean) * rstd * group.weight[j] + group.bias[j];
    });
    if (lane == 0) stats[2 * r] = mean, stats[2 * r + 1] = rstd;
  }
}

// dx and dz, a warp per row; then the chunk's parts of dweight and dbias, a thread per column, to
// partials [block, 2, width].
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Groups groups, int64_t width, DeviceDropout dropout,
                    const real* sum, const real* stats, const real* dy, real* dx, real* dz,
                    real* partials, unsigned* counters) {
  const Group& group = group_of(groups, int(blockIdx.x));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = group.row + int64_t(int(blockIdx.x) - group.first_block) * kChunk;
  const int64_t end = min(begin + kChunk, group.end);
  for (int64_t r = begin + warp; r < end && (dx || dz); r += kWarps) {
    const int64_t at = r * width;
    const real mean = stats[2 * r], rstd = stats[2 * r + 1];
    real total = 0, along = 0;
    for (int64_t j = lane; j < width; j += 32) {
      const real hat = (sum[at + j] - mean) * rstd, dhat = dy[at + j] * group.weight[j];
      total += dhat;
      along += dhat * hat;
    }
    total = warp_sum(total) / real(width);
    along = warp_sum(along) / real(width);
    for (int64_t j = lane; j < width; j += 32) {
      const real hat = (sum[at + j] - mean) * rstd;
      const real dr = rstd * (dy[at + j] * group.weight[j] - total - hat * along);
      if (dx) dx[at + j] += dr;
      if (dz) dz[at + j] += dr * device_keep(dropout, uint64_t(at + j));
    }
  }
  if (!group.dweight && !group.dbias) return;
  for (int64_t j = threadIdx.x; j < width; j += kThreads) {
    real dw = 0, db = 0;
#pragma unroll 4
    for (int64_t r = begin; r < end; ++r) {
      const real d = dy[r * width + j];
      dw += d * (sum[r * width + j] - stats[2 * r]) * stats[2 * r + 1];
      db += d;
    }
    real* const partial = partials + int64_t(blockIdx.x) * 2 * width;
    partial[j] = dw;
    partial[width + j] = db;
  }
  // The group's last block adds all chunks up, in their order and in double.
  const int blocks = int((group.end - group.row + kChunk - 1) / kChunk);
  if (!is_last_block(counters + (&group - groups.item), blocks)) return;
  for (int64_t j = threadIdx.x; j < 2 * width; j += kThreads) {
    real* const out = j < width ? group.dweight : group.dbias;
    if (!out) continue;
    const real* const first = partials + int64_t(group.first_block) * 2 * width + j;
    double total = 0;
#pragma unroll 8
    for (int b = 0; b < blocks; ++b) total += double(load_part(first + b * 2 * width));
    real& slot = out[j < width ? j : j - width];
    slot = real(double(slot) + total);
  }
}

// f(groups, blocks) for launches of at most kGroups groups.
template <class F>
void for_launches(std::span<const LayerNormGroup> groups, F&& f) {
  for (size_t begin = 0; begin < groups.size(); begin += kGroups) {
    Groups list;
    int blocks = 0;
    for (const LayerNormGroup& g :
         groups.subspan(begin, std::min<size_t>(kGroups, groups.size() - begin))) {
      list.item[list.count++] = {g.row,           g.row + g.rows, blocks,
                                 g.weight.data(), g.bias.data(),  pointer(g.dweight),
                                 pointer(g.dbias)};
      blocks += int(ceil_div<int64_t>(g.rows, kChunk));
    }
    f(list, blocks);
  }
}

// At most so many blocks a launch.
int64_t chunks(const LayerNormShape& s) { return s.rows / kChunk + kGroups; }

}  // namespace

size_t layer_norm_scratch_bytes(const Cuda&, const LayerNormShape& s) {
  return carve_bytes<real>(chunks(s) * 2 * s.width);
}

void layer_norm_forward(const Cuda& be, const LayerNormShape& s,
                        std::span<const LayerNormGroup> groups, In x, In z, Out sum, Out stats,
                        Out y) {
  check_layer_norm_forward(s, groups, x, z, sum, stats, y);
  if (s.width == 0) return;
  const auto kernel = s.width <= 64     ? forward_kernel<2>
                      : s.width <= 256  ? forward_kernel<8>
                      : s.width <= 1024 ? forward_kernel<32>
                                        : forward_kernel<0>;
  for_launches(groups, [&](const Groups& list, int blocks) {
    launch(be, kernel, unsigned(blocks), kThreads, 0, list, s.width, real(s.eps),
           DeviceDropout(s.dropout), x.data(), pointer(z), sum.data(), stats.data(), y.data());
  });
}

void layer_norm_backward(const Cuda& be, const LayerNormShape& s,
                         std::span<const LayerNormGroup> groups, In sum, In stats, In dy, InOut dx,
                         InOut dz, Scratch scratch) {
  check_layer_norm_backward(s, groups, sum, stats, dy, dx, dz, scratch,
                            layer_norm_scratch_bytes(be, s));
  if (s.width == 0) return;
  expect(be.counters != nullptr, "Cuda: the backend has no counters");
  real* partials = carve<real>(scratch, chunks(s) * 2 * s.width);
  for_launches(groups, [&](const Groups& list, int blocks) {
    launch(be, backward_kernel, unsigned(blocks), kThreads, 0, list, s.width,
           DeviceDropout(s.dropout), sum.data(), stats.data(), dy.data(), pointer(dx), pointer(dz),
           partials, be.counters);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
