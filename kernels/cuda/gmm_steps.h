// What the two passes of gmm share on the device: sizes, where a modality's arrays lie.
//
// A block has one modality and goes through every step alone, two barriers a step. Rows: a warp has
// two of them at a time, `lanes` neighbouring lanes share a component. Columns: a warp has eight
// columns of one component, four lanes share one and take every fourth row.
#pragma once

#include "kernels/cuda/reduce.h"
#include "kernels/gmm.h"

namespace decalign::inline DECALIGN_REAL::gmm_steps {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kRows = 2;                             // of a warp at a time
constexpr int kColumns = 8, kSplit = 32 / kColumns;  // of a warp; lanes that share a column
constexpr double kCountFloor = 1e-6, kWeightFloor = 1e-8, kMassFloor = 1e-8;

// What lies in shared memory; the rest lies in the state.
enum class Place { all, parameters, state };

// Work arrays are indexed by int, the state by int64_t.
struct Sizes {
  int batch, components, width, iterations;
  int lanes;        // that share a component
  int chunks;       // of kColumns columns, at least one
  int row_stride;   // of [B, d]; the strides keep the lanes of a warp in different banks
  int stride;       // of [K, d]
  int part_stride;  // of [K, chunks]
  int gamma_stride;
  bool last_step;  // the gradient stops at the last M-step
  double floor;
  int64_t share;  // doubles of the state per modality
};

// Doubles of the work arrays of a pass: those that grow with the batch, and the others.
struct Work {
  int64_t rows, parameters;
};

__host__ __device__ inline Work forward_work(const Sizes& s) {
  return {int64_t(s.batch) * (s.row_stride + s.gamma_stride + 2),
          int64_t(s.components) * (2 * s.stride + s.part_stride + 1)};
}

__host__ __device__ inline Work backward_work(const Sizes& s) {
  return {int64_t(s.batch) * (2 * s.row_stride + s.gamma_stride),
          int64_t(s.components) * (5 * s.stride + s.part_stride + 1 + kWarps * kRows)};
}

// The next n elements of an area.
__device__ inline double* take(double*& area, int64_t n) {
  double* const p = area;
  area += n;
  return p;
}

// Doubles of an array whose successor begins a sector of 32 bytes.
__host__ __device__ inline int64_t in_sectors(int64_t n) { return (n + 3) / 4 * 4; }

// One modality's part of the state: what the steps leave for the backward pass, then room for work
// arrays.
struct History {
  double* weights;     // [iterations + 1, K]
  double* means;       // [iterations + 1, K, d]
  double* variances;   // [iterations + 1, K, d]
  double* posteriors;  // [iterations + 1, B, K]
  double* counts;      // [iterations + 1, K]: sums of the posteriors over the rows
  double* centre;      // [d]: mean of the rows
  double* work;

  __device__ History(const Sizes& s, double* state) : work(state) {
    const int64_t K = (s.iterations + 1) * int64_t(s.components);
    weights = take(work, in_sectors(K));
    means = take(work, in_sectors(K * s.width));
    variances = take(work, in_sectors(K * s.width));
    posteriors = take(work, in_sectors(K * s.batch));
    counts = take(work, in_sectors(K));
    centre = take(work, in_sectors(s.width));
  }
};

inline int64_t history_size(const Sizes& s) {
  const int64_t K = (s.iterations + 1) * int64_t(s.components);
  return 2 * in_sectors(K) + 2 * in_sectors(K * s.width) + in_sectors(K * s.batch) +
         in_sectors(s.width);
}

// Where a pass puts its work arrays.
struct Areas {
  double *rows, *parameters;
};

template <Place kPlace>
__device__ Areas areas(const Work& work, double* shared, double* state) {
  if constexpr (kPlace == Place::all) return {shared, shared + work.rows};
  if constexpr (kPlace == Place::parameters) return {state, shared};
  return {state, state + work.rows};
}

constexpr size_t kShared = 160 * 1024;  // bytes of a block's shared memory on every architecture

inline Place place(const Work& w) {
  if (size_t(w.rows + w.parameters) * sizeof(double) <= kShared) return Place::all;
  return size_t(w.parameters) * sizeof(double) <= kShared ? Place::parameters : Place::state;
}

inline size_t shared_bytes(const Work& w) {
  switch (place(w)) {
    case Place::all:
      return size_t(w.rows + w.parameters) * sizeof(double);
    case Place::parameters:
      return size_t(w.parameters) * sizeof(double);
    default:
      return 0;
  }
}

inline Sizes sizes(const GmmShape& shape) {
  Sizes s;
  s.batch = int(shape.batch);
  s.components = int(shape.options.components);
  s.width = int(shape.width);
  s.iterations = int(shape.options.iterations);
  s.last_step = shape.options.gradient == GmmGradient::last_step;
  s.floor = shape.options.variance_floor;
  s.lanes = 32;
  while (s.lanes > 1 && s.lanes * s.components > 32) s.lanes /= 2;
  const auto padded = [](int n, int residue) { return n + (residue - n % 16 + 16) % 16; };
  s.chunks = std::max(1, ceil_div(s.width, kColumns));
  s.row_stride = padded(s.width, 8);
  s.stride = padded(s.width, s.lanes % 16);
  s.part_stride = padded(s.chunks, s.lanes % 16);
  s.gamma_stride = s.components | 1;
  int64_t room = 0;
  for (const Work& w : {forward_work(s), backward_work(s)})
    if (place(w) != Place::all)
      room = std::max(room, w.rows + (place(w) == Place::state ? w.parameters : 0));
  s.share = ceil_div<int64_t>(history_size(s) + room, 8) * 8;
  return s;
}

inline double gmm_terms(const GmmShape& s) {
  return double(s.modalities * s.batch * s.options.components * s.width);
}

// f(first) for the rows of a warp, kRows at a time; the last may be short of one.
template <class F>
__device__ void for_rows(const Sizes& s, F&& f) {
  for (int n = int(threadIdx.x) / 32 * kRows; n < s.batch; n += kWarps * kRows) f(n);
}

// The rows of x, in double, where the block's warps will read them.
__device__ inline void load_rows(const Sizes& s, const real* from, double* x) {
  for_rows(s, [&](int first) {
    for (int n = first; n < min(first + kRows, s.batch); ++n)
      for (int j = int(threadIdx.x) % 32; j < s.width; j += 32)
        x[n * s.row_stride + j] = double(from[int64_t(n) * s.width + j]);
  });
}

// Sums over the lanes that share a component.
__device__ inline double component_sum(const Sizes& s, double value) {
  for (int offset = s.lanes / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Sums over the lanes that share a column.
__device__ inline double column_sum(double value) {
#pragma unroll
  for (int offset = 16; offset >= kColumns; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Sums over a warp's columns.
__device__ inline double chunk_sum(double value) {
#pragma unroll
  for (int offset = kColumns / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL::gmm_steps
