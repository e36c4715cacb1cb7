// Large diagonal mixtures on the device: EM as matrix products, as in kernels/cpu/gmm_products.h.
//
// Rows go through a step chunk by chunk, so that what exists of their logits stays in the
// second-level cache: cuBLAS multiplies, a warp has a row's softmax. Sums are in `real` over
// kPromote rows, beyond them in double.
#pragma once

#include <algorithm>

#include "kernels/check/gmm_column.h"
#include "kernels/cuda/gmm_start.h"

namespace decalign::inline DECALIGN_REAL::gmm_products {

using gmm_steps::kCountFloor;
using gmm_steps::kMassFloor;
using gmm_steps::kWeightFloor;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int64_t kPromote = 1024;     // rows whose sums are in `real`
constexpr int64_t kBlockRows = 32;     // of a block with a warp per row
constexpr int64_t kColumnRows = 1024;  // of a block that sums columns, or distances
constexpr int64_t kChunkBytes = int64_t(32) << 20, kLargestChunk = 16 * kPromote;

// One mixture's parameters, or their gradients.
struct Parameters {
  double *weights, *means, *variances;
};

struct Problem {
  int64_t modalities = 0, batch = 0, width = 0, components = 0, iterations = 0;
  int64_t chunk = 0;  // rows, at most
  double floor = 0;
  double* history = nullptr;                // [iterations + 1, M, K (1 + 2 d)]
  double* counts = nullptr;                 // [iterations + 1, M, K]: sums of the posteriors
  double* spread = nullptr;                 // [M, d]: biased variance of the batch
  double* sums = nullptr;                   // [M, K (1 + 2 d)]: of 1, x'^2, x' under some weights
  double* dparameters = nullptr;            // [M, K (1 + 2 d)]
  double* parts = nullptr;                  // [M, row_blocks, 2 d]: sums of columns, of distances
  double* likelihoods = nullptr;            // [M, ceil(B / kBlockRows)]
  double* nearest = nullptr;                // [M, B], of k-means++
  real *shift = nullptr, *scale = nullptr;  // [M, d]: x' = (x - shift) scale
  // Right operands and their biases: logits, dgamma [M, K, 2 d], dx [M, 2 K, 2 d].
  real *logit_matrix = nullptr, *logit_bias = nullptr, *dgamma_matrix = nullptr,
       *dgamma_bias = nullptr, *dx_matrix = nullptr;
  // Of a chunk.
  real* features = nullptr;   // [chunk, 2 d]: x'^2, x'
  real* posterior = nullptr;  // [chunk, K]: logits, then posteriors
  real* dlogits = nullptr;    // [chunk, K]
  real* slopes = nullptr;     // [chunk, 2 d]: what dx is made of
  real* moments = nullptr;    // [chunk / kPromote, K, 2 d]
  real* totals = nullptr;     // [chunk / kBlockRows, K]

  __host__ __device__ int64_t parameters_size() const { return components * (1 + 2 * width); }
  __host__ __device__ int64_t row_blocks() const { return ceil_div(batch, kColumnRows); }
  __host__ __device__ int64_t likelihood_parts() const { return ceil_div(batch, kBlockRows); }
  __device__ Parameters at(double* p) const {
    return {p, p + components, p + components * (1 + width)};
  }
  __device__ Parameters parameters(int64_t step, int64_t m) const {
    return at(history + (step * modalities + m) * parameters_size());
  }
  __device__ Parameters gradients(int64_t m) const {
    return at(dparameters + m * parameters_size());
  }
  __device__ double* count(int64_t step, int64_t m) const {
    return counts + (step * modalities + m) * components;
  }
  __device__ double shift_of(int64_t m, int64_t j) const { return double(shift[m * width + j]); }
  __device__ double scale_of(int64_t m, int64_t j) const { return double(scale[m * width + j]); }
  __device__ double floor_of(int64_t m, int64_t j) const {
    return gmm_column::variance_floor(floor, spread[m * width + j]);
  }
  // Column j of component k.
  __device__ gmm_column::Column column(int64_t m, const Parameters& p, int64_t k, int64_t j) const {
    const int64_t i = k * width + j;
    return gmm_column::column(p.means[i], p.variances[i], shift_of(m, j), scale_of(m, j));
  }
};

Problem problem(const GmmShape&, Scratch state);

// Rows [first, first + rows) of modality m.
struct Chunk {
  int64_t m, first, rows;
};
template <class F>
void for_chunks(const Problem& q, F&& f) {
  for (int64_t m = 0; m < q.modalities; ++m)
    for (int64_t first = 0; first < q.batch; first += q.chunk)
      f(Chunk{m, first, std::min(q.chunk, q.batch - first)});
}

inline unsigned blocks(int64_t n, int64_t each) { return unsigned(ceil_div(n, each)); }
/// Products are in `real` whatever be.precision is.
inline Cuda plain(Cuda be) {
  expect(be.blas != nullptr, "gmm: the backend has no cuBLAS handle");
  be.precision = Precision::fp32;
  return be;
}

/// choice [M, K], and of x [M, B, d] what standardises it and the parameters of step 0.
void start(const Cuda&, const GmmShape&, const Problem&, const real* x, int32_t* choice);
/// The chunk's features, and logits without their bias to `logits` [rows, K].
void expectation(const Cuda&, const Problem&, const Chunk&, const real* x, real* logits);
/// Posteriors from logits without bias, in place. Sums of kBlockRows of them to q.totals; the rows'
/// log sum_k exp to q.likelihoods if `likelihood`.
void softmax(const Cuda&, const Problem&, const Chunk&, bool likelihood, real* logits);
/// Adds the chunk's q.totals, and if `a` is not null a^T features, a [rows, K], to q.sums; the
/// first chunk's overwrite them.
void add_moments(const Cuda&, const Problem&, const Chunk&, const real* a);

// A row's numbers in the lanes of a warp, 32 apart: kEach of them a lane, in registers; 0: in
// memory, where registers would not do.
template <int kEach>
struct Row {
  real* memory;
  real v[kEach > 0 ? kEach : 1];

  // The lane's i-th number, the row's k-th.
  __device__ real& at(int i, int k) {
    if constexpr (kEach > 0)
      return v[i];
    else
      return memory[k];
  }
};

// Of a multiprocessor, at least.
template <int kEach>
constexpr int kBlocks = kEach == 32 ? 1 : 2;

/// f(i, k) for the lane's numbers of a row of `size`.
template <int kEach, class F>
__device__ void for_lane(int size, F&& f) {
  const int lane = int(threadIdx.x) % 32;
  if constexpr (kEach > 0) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (lane + 32 * i < size) f(i, lane + 32 * i);
  } else {
    for (int k = lane; k < size; k += 32) f(0, k);
  }
}

/// The softmax of memory [size] + bias, in the row; log sum exp if `likelihood`.
template <int kEach>
__device__ double softmax_row(int size, const real* bias, bool likelihood, Row<kEach>& row) {
  real top = real(-HUGE_VAL), sum = 0;
  for_lane<kEach>(size, [&](int i, int k) {
    row.at(i, k) = row.memory[k] + bias[k];
    top = max(top, row.at(i, k));
  });
  top = warp_max(top);
  for_lane<kEach>(size, [&](int i, int k) {
    const real e = exp(row.at(i, k) - top);
    row.at(i, k) = e;
    sum += e;
  });
  sum = warp_sum(sum);
  const real inverse = 1 / sum;
  for_lane<kEach>(size, [&](int i, int k) { row.at(i, k) *= inverse; });
  return likelihood ? double(top) + log(double(sum)) : 0;
}

template <int kEach>
__device__ void store_row(int size, Row<kEach>& row) {
  if constexpr (kEach > 0)
    for_lane<kEach>(size, [&](int i, int k) { row.memory[k] = row.at(i, k); });
}

/// to [size]: the sum of the block's rows, from the lanes' own sums or, if they have none, from the
/// rows in memory. All threads take part.
template <int kEach>
__device__ void write_totals(int size, Row<kEach>& mine, const real* from, int64_t rows, real* to) {
  const int warp = int(threadIdx.x) / 32;
  if constexpr (kEach > 0) {
    SHARED(real, total, [32 * kEach]);
    for (int w = 0; w < kWarps; ++w) {
      if (warp == w)
        for_lane<kEach>(size, [&](int i, int k) {
          total[k] = w > 0 ? total[k] + mine.at(i, k) : mine.at(i, k);
        });
      __syncthreads();
    }
    for (int k = int(threadIdx.x); k < size; k += kThreads) to[k] = total[k];
  } else {
    __syncthreads();
    for (int k = int(threadIdx.x); k < size; k += kThreads) {
      real sum = 0;
      for (int64_t n = 0; n < rows; ++n) sum += from[n * size + k];
      to[k] = sum;
    }
  }
}

template <int kEach>
struct Each {
  static constexpr int value = kEach;
};
/// f(Each) for rows of K numbers.
template <class F>
void with_each(int64_t K, F&& f) {
  if (K <= 64) return f(Each<2>());
  if (K <= 256) return f(Each<8>());
  if (K <= 1024) return f(Each<32>());
  f(Each<0>());
}

/// The matrix and the bias of step's logits of component k, by a warp.
__device__ inline void prepare_logits(const Problem& q, int64_t step, int64_t m, int64_t k) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t d = q.width;
  const Parameters p = q.parameters(step, m);
  real* const row = q.logit_matrix + (m * q.components + k) * 2 * d;
  double constant = 0;
  for (int64_t j = lane; j < d; j += 32) {
    const auto terms = gmm_column::logit_terms(q.column(m, p, k, j));
    row[j] = real(terms.square);
    row[d + j] = real(terms.plain);
    constant += terms.constant - 0.5 * log(p.variances[k * d + j]);
  }
  constant = warp_sum(constant);
  if (lane == 0)
    q.logit_bias[m * q.components + k] = real(log(max(p.weights[k], kWeightFloor)) + constant);
}

}  // namespace decalign::inline DECALIGN_REAL::gmm_products

namespace decalign::inline DECALIGN_REAL {

size_t gmm_products_state_bytes(const GmmShape&);
void gmm_products_forward(const Cuda&, const GmmShape&, In x, Out weights, Out means, Out variances,
                          Out posteriors, Out marginals, Out log_likelihood,
                          std::span<int32_t> choice, Scratch state);
void gmm_products_backward(const Cuda&, const GmmShape&, In x, std::span<const int32_t> choice,
                           In dweights, In dmeans, In dvariances, In dposteriors, In dmarginals,
                           In dlog_likelihood, InOut dx, Scratch state);

}  // namespace decalign::inline DECALIGN_REAL
