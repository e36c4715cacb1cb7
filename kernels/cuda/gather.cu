#include "kernels/check/gather.h"
#include "kernels/cuda/launch.h"
#include "kernels/gather.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256, kParts = 16;

struct Part {
  const float* source;
  int64_t samples, elements;
  real* target;
  int32_t* whole;
};

// A thread per element of the widest part, a part per row of the grid.
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const __grid_constant__ ParameterList<Part, kParts> parts, const int64_t* order,
                  int64_t ordered, const int64_t* first, int64_t count) {
  const Part& p = parts.item[blockIdx.y];
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= count * p.elements) return;
  const int64_t place = *first + at / p.elements;
  const int64_t n = place >= 0 && place < ordered ? order[place] : -1;
  const float x = n >= 0 && n < p.samples ? p.source[n * p.elements + at % p.elements] : 0.0f;
  if (p.target)
    p.target[at] = real(x);
  else
    p.whole[at] = int32_t(x);
}

}  // namespace

void gather(const Cuda& be, std::span<const GatherPart> parts, std::span<const int64_t> order,
            const int64_t* first, int64_t count) {
  check_gather(parts, first, count);
  for (size_t begin = 0; begin < parts.size(); begin += kParts) {
    ParameterList<Part, kParts> list;
    int64_t widest = 0;
    for (size_t i = begin; i < std::min(parts.size(), begin + kParts); ++i) {
      const GatherPart& p = parts[i];
      widest = std::max(widest, p.elements);
      list.item[list.count++] = {p.source.data(), std::ssize(p.source) / p.elements, p.elements,
                                 pointer(p.target), p.whole.data()};
    }
    const dim3 grid(unsigned(ceil_div<int64_t>(count * widest, kThreads)), unsigned(list.count));
    launch(be, gather_kernel, grid, kThreads, 0, list, order.data(), std::ssize(order), first,
           count);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
