#include "kernels/gather.h"

#include "kernels/check/gather.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {

void gather(const Cpu& be, std::span<const GatherPart> parts, std::span<const int64_t> order,
            const int64_t* first, int64_t count) {
  check_gather(parts, first, count);
  for (const GatherPart& p : parts) {
    const int64_t samples = std::ssize(p.source) / p.elements;
    parallel_ranges(be, count, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = *first + i;
        const int64_t n = at >= 0 && at < std::ssize(order) ? order[size_t(at)] : -1;
        for (int64_t e = 0; e < p.elements; ++e) {
          const float x = n >= 0 && n < samples ? p.source[size_t(n * p.elements + e)] : 0.0f;
          const size_t out = size_t(i * p.elements + e);
          if (p.whole.empty())
            p.target[out] = real(x);
          else
            p.whole[out] = int32_t(x);
        }
      }
    });
  }
}

}  // namespace decalign::inline DECALIGN_REAL
