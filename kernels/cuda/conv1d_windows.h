// What both directions of the convolution know.
#pragma once

#include "kernels/conv1d.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/gemm.h"

namespace decalign::inline DECALIGN_REAL::conv {

// The steps that make a row of y lie one after the other in x, so the convolution is a product of
// overlapping rows of kernel * width elements with the weight as [channels, (tap, column)]. Its
// depth goes by blocks of kDepth columns, and in each by taps: taps of a block share their cache
// lines.

/// Of y, whatever the sequences' lengths.
inline int64_t most_rows(const Conv1dShape& s) {
  return s.batch * std::max<int64_t>(s.steps - s.kernel + 1, 0);
}
inline gemm::Chunks chunks(const Cuda& be, const Conv1dShape& s) {
  return gemm::Chunks(be, most_rows(s), 1, s.channels, s.kernel * s.width);
}
constexpr int kMostChunk = 512;  // rows, see Chunks

struct Call {
  int64_t batch, steps, width, channels;
  int kernel;
  const int64_t* first;  // [batch + 1], the sequences' rows of y
  int64_t rows;          // of y, in all sequences
  const real *x, *weight;
};

// The sequence that row `row` of y belongs to, row >= first[0].
__device__ inline int64_t sequence_of(const Call& call, int64_t row) {
  int64_t low = 0, high = call.batch;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (call.first[middle] <= row ? low : high) = middle;
  }
  return low;
}

// Where in x the window of the modality's r-th row of y begins.
__device__ inline int64_t window_of(const Call& call, int64_t r) {
  const int64_t row = call.first[0] + r, b = sequence_of(call, row);
  // scattered: a search in a list of B + 1 numbers; neighbours look at the same ones
  return (b * call.steps + row - call.first[b]) * call.width;
}

inline Call make_call(const Cuda& be, const Conv1dShape& s, const Rows& rows, In x, In weight) {
  const auto first = rows.first.subspan(size_t(s.modality * s.batch), size_t(s.batch) + 1);
  return {s.batch,
          s.steps,
          s.width,
          s.channels,
          int(s.kernel),
          device_list(be, first),
          rows.modality_rows(s.modality),
          x.data(),
          weight.data()};
}

}  // namespace decalign::inline DECALIGN_REAL::conv
