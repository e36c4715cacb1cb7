#include "kernels/check/concat.h"
#include "kernels/concat.h"
#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;
constexpr int kParts = 16, kModalities = 64;  // per launch

// The part of y that a launch covers: `parts` parts from part `part`, `modalities` modalities from
// modality `modality`.
struct Slice {
  int64_t batch, width, all_parts, all_modalities;
  int part, parts, modality, modalities;
  uint64_t active;        // bit m: modality + m is active
  int64_t active_before;  // modalities before this slice that are
};

// Where an element lies in y and in its part; `source` negative: its modality is inactive.
struct Place {
  int part;
  int64_t y, source;
};

// `column` within the slice's row of parts * modalities * width.
__device__ Place place(const Slice& s, int64_t b, uint32_t column) {
  const uint32_t width = uint32_t(s.width), columns = uint32_t(s.modalities) * width;
  const uint32_t p = column / columns, rest = column - p * columns;
  const uint32_t m = rest / width, j = rest - m * width;
  const int64_t a = s.active_before + __popcll(s.active & ((uint64_t(1) << m) - 1));
  return {int(p),
          ((b * s.all_parts + s.part + p) * s.all_modalities + s.modality + m) * s.width + j,
          s.active >> m & 1 ? (a * s.batch + b) * s.width + j : -1};
}

__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ Slice s,
                   const __grid_constant__ ParameterList<const real*, kParts> parts, real* y) {
  const uint32_t column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= uint32_t(s.parts * s.modalities) * uint32_t(s.width)) return;
  for (int64_t b = blockIdx.y; b < s.batch; b += gridDim.y) {
    const Place at = place(s, b, column);
    y[at.y] = at.source < 0 ? real(0) : parts.item[at.part][at.source];
  }
}

__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Slice s,
                    const __grid_constant__ ParameterList<real*, kParts> parts, const real* dy) {
  const uint32_t column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= uint32_t(s.parts * s.modalities) * uint32_t(s.width)) return;
  for (int64_t b = blockIdx.y; b < s.batch; b += gridDim.y) {
    const Place at = place(s, b, column);
    real* const part = parts.item[at.part];
    if (part && at.source >= 0) part[at.source] += dy[at.y];
  }
}

// f(slice, its parts, grid) for every launch.
template <class Span, class F>
void for_slices(const ConcatShape& shape, std::span<const Span> parts, F&& f) {
  Slice s{};
  s.batch = shape.batch, s.width = shape.width;
  s.all_parts = std::ssize(parts), s.all_modalities = shape.modalities();
  for (int64_t m = 0; m < s.all_modalities; m += kModalities) {
    s.modality = int(m), s.modalities = int(std::min<int64_t>(kModalities, s.all_modalities - m));
    s.active = 0;
    for (int i = 0; i < s.modalities; ++i)
      s.active |= uint64_t(shape.active[size_t(m + i)] != 0) << i;
    s.part = 0;
    in_parts<kParts, decltype(pointer(Span()))>(
        parts, [](const Span& p) { return pointer(p); },
        [&](const auto& list) {
          s.parts = list.count;
          const int64_t columns = int64_t(s.parts) * s.modalities * s.width;
          f(s, list,
            dim3(unsigned(ceil_div<int64_t>(columns, kThreads)),
                 unsigned(std::min<int64_t>(s.batch, 65535))));
          s.part += list.count;
        });
    s.active_before +=
        std::count_if(shape.active.begin() + m, shape.active.begin() + m + s.modalities,
                      [](uint8_t a) { return a != 0; });
  }
}

}  // namespace

void concat_forward(const Cuda& be, const ConcatShape& s, std::span<const In> parts, Out y) {
  check_concat_forward(s, parts, y);
  for_slices(s, parts, [&](const Slice& slice, const auto& list, dim3 grid) {
    launch(be, forward_kernel, grid, kThreads, 0, slice, list, y.data());
  });
}

void concat_backward(const Cuda& be, const ConcatShape& s, In dy, std::span<const InOut> dparts) {
  check_concat_backward(s, dy, dparts);
  for_slices(s, dparts, [&](const Slice& slice, const auto& list, dim3 grid) {
    launch(be, backward_kernel, grid, kThreads, 0, slice, list, dy.data());
  });
}

}  // namespace decalign::inline DECALIGN_REAL
