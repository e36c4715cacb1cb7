#include <algorithm>

#include "kernels/check/mask.h"
#include "kernels/cuda/vector.h"
#include "kernels/mask.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kSources = 16;  // modalities per launch

// Elements of type T, `width` to a row. A block takes `per_block` rows.
template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(int64_t rows, uint32_t width, uint32_t per_block, const T* x, const real* mask,
                   T* y) {
  const int64_t row = int64_t(blockIdx.x) * per_block;
  const uint32_t elements = uint32_t(min(int64_t(per_block), rows - row)) * width;
  for (uint32_t e = threadIdx.x; e < elements; e += kThreads) {
    T value{};
    if (mask[row + e / width] != 0) value = x[row * width + e];
    y[row * width + e] = value;
  }
}

__device__ void add(Four& to, const Four& from) {
#pragma unroll
  for (int i = 0; i < 4; ++i) to.v[i] += from.v[i];
}
__device__ void add(real& to, const real& from) { to += from; }

template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(int64_t rows, uint32_t width, uint32_t per_block, const T* dy, const real* mask,
                    T* dx) {
  const int64_t row = int64_t(blockIdx.x) * per_block;
  const uint32_t elements = uint32_t(min(int64_t(per_block), rows - row)) * width;
  for (uint32_t e = threadIdx.x; e < elements; e += kThreads) {
    if (mask[row + e / width] == 0) continue;
    T sum = dx[row * width + e];
    add(sum, dy[row * width + e]);
    dx[row * width + e] = sum;
  }
}

template <class T>
void launch_rows(const Cuda& be,
                 void (*kernel)(int64_t, uint32_t, uint32_t, const T*, const real*, T*),
                 int64_t width, In from, In mask, Out to) {
  const int64_t rows = std::ssize(mask), items = width / int64_t(sizeof(T) / sizeof(real));
  const int64_t per_block = std::max<int64_t>(1, kThreads / items);
  launch(be, kernel, unsigned(ceil_div(rows, per_block)), kThreads, 0, rows, uint32_t(items),
         uint32_t(per_block), reinterpret_cast<const T*>(from.data()), mask.data(),
         reinterpret_cast<T*>(to.data()));
}

struct Source {
  const real* x;
  int64_t steps, width;
};
using Sources = ParameterList<Source, kSources>;

// A block per sequence and kWarps of its rows, a warp per row; most rows end with their first 32
// columns.
__global__ void __launch_bounds__(kThreads)
    zero_rows_kernel(const __grid_constant__ Sources sources, const int64_t* first, int64_t batch,
                     real* mask) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t s = blockIdx.x, t = int64_t(blockIdx.y) * kWarps + warp;
  const int64_t row = first[s] + t;
  if (row >= first[s + 1]) return;
  const Source& source = sources.item[s / batch];
  bool keep = !source.x;
  if (!keep) {
    const real* x = source.x + (s % batch * source.steps + t) * source.width;
    for (int64_t j = 0; j < source.width && !keep; j += 32)
      keep = __any_sync(0xffffffffu, j + lane < source.width && x[j + lane] != 0);
  }
  if (lane == 0) mask[row] = keep;
}

}  // namespace

void mask_rows_forward(const Cuda& be, int64_t width, In x, In mask, Out y) {
  check_mask_rows_forward(width, x, mask, y);
  if (y.empty()) return;
  if (width % 4 == 0 && by_fours(x.data(), y.data()))
    launch_rows(be, forward_kernel<Four>, width, x, mask, y);
  else
    launch_rows(be, forward_kernel<real>, width, x, mask, y);
}

void mask_rows_backward(const Cuda& be, int64_t width, In mask, In dy, InOut dx) {
  check_mask_rows_backward(width, mask, dy, dx);
  if (dx.empty()) return;
  if (width % 4 == 0 && by_fours(dy.data(), dx.data()))
    launch_rows(be, backward_kernel<Four>, width, dy, mask, dx);
  else
    launch_rows(be, backward_kernel<real>, width, dy, mask, dx);
}

void zero_rows_mask(const Cuda& be, const Rows& rows, std::span<const StepSource> sources,
                    Out mask) {
  check_zero_rows_mask(rows, sources, mask);
  if (mask.empty()) return;
  const int64_t* first = device_list(be, rows.first);
  for (int64_t m = 0; m < rows.modalities; m += kSources) {
    Sources list;
    int64_t longest = 0;
    for (; list.count < std::min<int64_t>(kSources, rows.modalities - m); ++list.count) {
      const StepSource& source = sources[size_t(m + list.count)];
      list.item[list.count] = {pointer(source.x), source.steps, source.width};
    }
    const int64_t begin = m * rows.batch, count = list.count * rows.batch;
    for (int64_t s = begin; s < begin + count; ++s) longest = std::max(longest, rows.length(s));
    launch(be, zero_rows_kernel,
           dim3(unsigned(count), unsigned(ceil_div<int64_t>(longest, kWarps))), kThreads, 0, list,
           first + begin, rows.batch, mask.data());
  }
}

}  // namespace decalign::inline DECALIGN_REAL
