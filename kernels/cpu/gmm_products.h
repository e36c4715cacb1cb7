// Large diagonal mixtures: EM as matrix products. With standardised columns x', a row's logits are
// [x'^2, x'] . [-1 / (2 v'), mu' / v'] + constant, and an M-step is gamma^T [1, x'^2, x'].
//
// Rows are cut into chunks by their number alone. A chunk goes through the steps' products tile by
// tile, so that posteriors exist for a tile at a time; its sums are in double.
#pragma once

#include "kernels/check/gmm_column.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gmm_steps.h"

namespace decalign::inline DECALIGN_REAL::mixture {

struct ProductProblem {
  static constexpr int64_t kRows = 112;   // of a tile
  static constexpr int64_t kPromote = 9;  // tiles whose sums are in `real`
  static constexpr int64_t kSmallestChunk = 18 * kRows, kLargestChunks = 64;

  int64_t modalities = 0, batch = 0, width = 0, components = 0, iterations = 0;
  int64_t chunk = 0, chunks = 0;  // rows of a chunk, chunks per modality
  double floor = 0;
  double* history = nullptr;                // [iterations + 1, M, K (1 + 2 d)]
  double* counts = nullptr;                 // [iterations + 1, M, K]: sums of the posteriors
  double* spread = nullptr;                 // [M, d]: biased variance of the batch
  real *shift = nullptr, *scale = nullptr;  // [M, d]: x' = (x - shift) scale
  double* sums = nullptr;         // [M, chunks, K (1 + 2 d)]: of 1, x'^2, x' under some weights
  double* row_sums = nullptr;     // [M, chunks]: log-likelihood
  double* dparameters = nullptr;  // [M, K (1 + 2 d)]
  double* nearest = nullptr;      // [M, B], of k-means++
  // Right operands, packed, and their biases: logits, dgamma [M, 2 d, K], dx [M, 2 K, 2 d].
  real *logit_matrix = nullptr, *logit_bias = nullptr, *dgamma_matrix = nullptr,
       *dgamma_bias = nullptr, *dx_matrix = nullptr, *plain = nullptr;
  real* buffers = nullptr;  // [M, chunks, buffer_size]

  int64_t parameters_size() const { return components * (1 + 2 * width); }
  int64_t packed_logits() const { return packed_size(2 * width, components); }
  int64_t packed_dx() const { return packed_size(2 * components, 2 * width); }
  int64_t plain_size() const { return 4 * width * components; }
  int64_t second_width() const { return std::max(2 * width, components); }
  int64_t buffer_size() const {
    return round_up(
        kRows * (2 * width + second_width() + 3 * components) + components * (1 + 2 * width), 16);
  }
  double floor_of(int64_t m, int64_t j) const {
    return gmm_column::variance_floor(floor, spread[m * width + j]);
  }
  double shift_of(int64_t m, int64_t j) const { return double(shift[m * width + j]); }
  double scale_of(int64_t m, int64_t j) const { return double(scale[m * width + j]); }
  // Column j of component k.
  gmm_column::Column column(int64_t m, const Parameters& p, int64_t k, int64_t j) const {
    const int64_t i = k * width + j;
    return gmm_column::column(p.means[i], p.variances[i], shift_of(m, j), scale_of(m, j));
  }
  Parameters parameters(int64_t step, int64_t m) const {
    return at(history + (step * modalities + m) * parameters_size());
  }
  Parameters at(double* p) const { return {p, p + components, p + components * (1 + width)}; }
  double* count(int64_t step, int64_t m) const {
    return counts + (step * modalities + m) * components;
  }
  double* chunk_sums(int64_t m, int64_t c) const {
    return sums + (m * chunks + c) * parameters_size();
  }
};

/// A chunk and its buffers.
struct ProductTask {
  int64_t m, c, first, last;
  real* features;         // [kRows, 2 d]: x'^2, x'
  real* second;           // [kRows, 2 d]
  real* posterior;        // [kRows, K]
  real* pair;             // [kRows, 2 K]
  real *moments, *total;  // sums in `real`: [K, 2 d], [K]
};

bool by_products(const GmmShape&);
size_t products_state_bytes(const GmmShape&);
ProductProblem product_problem(const GmmShape&, Scratch state);
ProductTask product_task(const ProductProblem&, int64_t index);

/// The matrix of step's logits, packed, and its bias.
void prepare_logits(const ProductProblem&, int64_t step, int64_t m);
/// features of `rows` rows from x [rows, d].
void standardise(const ProductProblem&, int64_t m, const real* x, int64_t rows, real* features);
/// posterior = softmax of the logits; the sum of the rows' log sum_k exp if `likelihood`.
double tile_posteriors(const ProductProblem&, const ProductTask&, int64_t rows, bool likelihood);
/// Adds a [rows, K] (row stride lda) times [1, features] to the task's sums; `flush` promotes them.
void add_moments(const ProductProblem&, const ProductTask&, int64_t rows, const real* a,
                 int64_t lda);
void flush_moments(const ProductProblem&, const ProductTask&);
/// Sums of all chunks in those of chunk 0.
void add_chunk_sums(const ProductProblem&, int64_t m);

void products_forward(const Cpu&, const GmmShape&, In x, Out weights, Out means, Out variances,
                      Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                      Scratch state);
void products_backward(const Cpu&, const GmmShape&, In x, std::span<const int32_t> choice,
                       In dweights, In dmeans, In dvariances, In dposteriors, In dmarginals,
                       In dlog_likelihood, InOut dx, Scratch state);

}  // namespace decalign::inline DECALIGN_REAL::mixture
