#include <algorithm>

#include "kernels/check/dropout.h"
#include "kernels/cuda/dropout_keep.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 128, kItems = 8;
constexpr int kWarpElements = 32 * kItems, kBlockElements = kThreads * kItems;

// The decisions of 256 elements from `first` on, held by a warp: a lane has eight neighbours from a
// multiple of 8, and where `first` is none, everyone has the last few. Lane l asks for elements
// 32 u + l, so that a warp reads and writes 32 neighbours at once. `first` may be negative: what
// lies before element 0 must not be asked for.
struct KeepWindow {
  uint32_t bits, last;
  int offset;
  // All lanes take part.
  __device__ KeepWindow(const DeviceDropout& d, int64_t first, int lane)
      : bits(255), last(255), offset(int(first & 7)) {
    if (d.threshold == 0) return;
    const uint64_t seed = d.state->seed, step = d.state->step;
    bits = device_keep_bits(d, seed, step, uint64_t((first >> 3) + lane));
    if (offset) last = device_keep_bits(d, seed, step, uint64_t((first >> 3) + 32));
  }
  __device__ bool kept(int u, int lane) const {
    const int e = 32 * u + lane + offset;
    const uint32_t theirs = __shfl_sync(0xffffffffu, bits, e / 8 % 32);
    return (e / 8 == 32 ? last : theirs) >> (e % 8) & 1;
  }
};

// A block per kBlockElements elements of a copy.
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const RowCopy* copies, unsigned chunks, int64_t width, real factor,
                   DeviceDropout dropout, const real* x, real* y) {
  // scattered: one entry of 24 bytes for the whole block
  const RowCopy copy = copies[blockIdx.x / chunks];
  const int lane = threadIdx.x % 32;
  const int64_t first =
      int64_t(blockIdx.x % chunks) * kBlockElements + int64_t(threadIdx.x / 32) * kWarpElements;
  const int64_t count = copy.rows * width, from = copy.x_row * width, to = copy.y_row * width;
  if (first >= count) return;
  real v[kItems];
#pragma unroll
  for (int u = 0; u < kItems; ++u)
    if (const int64_t i = first + 32 * u + lane; i < count) v[u] = x[from + i];
  const KeepWindow keep(dropout, to + first, lane);
#pragma unroll
  for (int u = 0; u < kItems; ++u) {
    const bool kept = keep.kept(u, lane);
    if (const int64_t i = first + 32 * u + lane; i < count)
      y[to + i] = kept ? v[u] * factor : real(0);
  }
}

// A block per kBlockElements elements of x, which several copies may have read: kThreads copies at
// a time, those that touch the block are listed in their order and added.
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const RowCopy* copies, int count, int64_t elements, int64_t width, real factor,
                    DeviceDropout dropout, const real* dy, real* dx) {
  SHARED(RowCopy, touching, [kThreads]);
  SHARED(int, in_warp, [kThreads / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t block_first = int64_t(blockIdx.x) * kBlockElements,
                block_end = min(block_first + kBlockElements, elements);
  const int64_t first = block_first + int64_t(warp) * kWarpElements,
                end = min(first + kWarpElements, elements);
  real sum[kItems] = {};
  for (int c0 = 0; c0 < count; c0 += kThreads) {
    RowCopy copy;
    bool touches = false;
    if (const int c = c0 + int(threadIdx.x); c < count) {
      copy = copies[c];
      touches = copy.x_row * width < block_end && (copy.x_row + copy.rows) * width > block_first;
    }
    const unsigned votes = __ballot_sync(0xffffffffu, touches);
    if (lane == 0) in_warp[warp] = __popc(votes);
    __syncthreads();
    int place = __popc(votes & ((1u << lane) - 1)), total = 0;
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) place += in_warp[w];
      total += in_warp[w];
    }
    if (touches) touching[place] = copy;
    __syncthreads();
    for (int t = 0; t < total; ++t) {
      const RowCopy& c = touching[t];
      const int64_t low = max(first, c.x_row * width), high = min(end, (c.x_row + c.rows) * width);
      if (low >= high) continue;
      const int64_t shift = (c.y_row - c.x_row) * width;
      const KeepWindow keep(dropout, first + shift, lane);
#pragma unroll
      for (int u = 0; u < kItems; ++u) {
        const bool kept = keep.kept(u, lane);
        if (const int64_t i = first + 32 * u + lane; i >= low && i < high && kept)
          sum[u] += factor * dy[i + shift];
      }
    }
    __syncthreads();  // the list is written again
  }
#pragma unroll
  for (int u = 0; u < kItems; ++u)
    if (const int64_t i = first + 32 * u + lane; i < end) dx[i] += sum[u];
}

real factor_of(const DropoutShape& s, const DeviceDropout& d) {
  return real(s.scale * double(d.scale));
}

}  // namespace

void dropout_forward(const Cuda& be, const DropoutShape& s, std::span<const RowCopy> copies, In x,
                     Out y) {
  check_dropout_forward(s, copies, x, y);
  int64_t most = 0;
  for (const RowCopy& c : copies) most = std::max(most, c.rows);
  const int64_t chunks = ceil_div<int64_t>(most * s.width, kBlockElements);
  if (chunks == 0) return;
  const DeviceDropout dropout(s.dropout);
  launch(be, forward_kernel, unsigned(chunks * std::ssize(copies)), kThreads, 0,
         device_list(be, copies), unsigned(chunks), s.width, factor_of(s, dropout), dropout,
         x.data(), y.data());
}

void dropout_backward(const Cuda& be, const DropoutShape& s, std::span<const RowCopy> copies, In dy,
                      InOut dx) {
  check_dropout_backward(s, copies, dy, dx);
  if (dx.empty() || dy.empty()) return;
  const DeviceDropout dropout(s.dropout);
  launch(be, backward_kernel, unsigned(ceil_div<int64_t>(std::ssize(dx), kBlockElements)), kThreads,
         0, device_list(be, copies), int(copies.size()), std::ssize(dx), s.width,
         factor_of(s, dropout), dropout, dy.data(), dx.data());
}

}  // namespace decalign::inline DECALIGN_REAL
