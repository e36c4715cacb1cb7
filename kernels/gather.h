// A batch from a data set that lies in the backend's memory.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// An array of the data set and where its samples go: features, labels or classes.
struct GatherPart {
  std::span<const float> source;  ///< [N, elements]
  int64_t elements = 1;           ///< of a sample
  Out target;                     ///< [count, elements]; empty: `whole` is written
  std::span<int32_t> whole;       ///< [count, elements], of a source of whole numbers
};

/// target[i, e] = source[order[*first + i], e] for i in [0, count), every part.
///
///   order  sample numbers, backend memory; `first` too, so that a recorded step can be replayed on
///   the next samples. An order entry outside [0, N) or an i beyond the order's end gives zeros.
/// Throws std::invalid_argument for a span that does not fit.
void gather(const Cpu&, std::span<const GatherPart>, std::span<const int64_t> order,
            const int64_t* first, int64_t count);
void gather(const Cuda&, std::span<const GatherPart>, std::span<const int64_t> order,
            const int64_t* first, int64_t count);

}  // namespace decalign::inline DECALIGN_REAL
