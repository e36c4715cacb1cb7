// EM with full covariances in double, shared by the forward and the backward pass.
//
// Work is cut into tasks (modality, chunk of rows, group of components): a training step's batch is
// one chunk, whose components are spread over the threads; large samples are many chunks.
#pragma once

#include "kernels/cpu/double_tile.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gmm_steps.h"

namespace decalign::inline DECALIGN_REAL::mixture {

struct FullProblem {
  int64_t modalities = 0, batch = 0, width = 0, components = 0, iterations = 0;
  int64_t stride = 0;  // of a [d, d] matrix
  int64_t tiles = 0;   // of kTileRows rows each, the last one padded
  int64_t chunk = 0;   // rows of a chunk: whole tiles
  int64_t chunks = 0;  // per modality
  int64_t groups = 0;  // of components
  double floor = 0, ridge = 0;

  double* x = nullptr;  // [M, tiles, d, kTileRows], padded rows repeat the last one
  // Of every step, [iterations + 1, M, K, ...]: pi, sum of the posteriors, mu, U of Sigma = U^T U.
  double *weights = nullptr, *counts = nullptr, *means = nullptr, *factors = nullptr;
  double* centre = nullptr;    // [M, d]: mean of the rows
  double* rho = nullptr;       // [M]: what is added to the diagonals
  double* logits = nullptr;    // [M, K, padded rows], then the posteriors
  double* row_sums = nullptr;  // [M, chunks]: log-likelihood of a chunk
  double* partial = nullptr;   // [M, K, chunks, 2 + d + d stride]: sums of a task
  double* buffers = nullptr;   // [tasks, buffer_size]
  double* nearest = nullptr;   // [M, B], of k-means++
  // Gradients: of posteriors [M, K, padded rows]; of pi, mu and Sigma; of x [groups, M, tiles, d,
  // kTileRows]; of rho by component [M, K]; tr(dSigma Sigma) [M, K].
  double *dgamma = nullptr, *dweights = nullptr, *dmeans = nullptr, *dcovariances = nullptr,
         *dx = nullptr, *drho = nullptr, *traces = nullptr;
  double* inverses = nullptr;  // [M, K, 2, d, stride]

  int64_t padded() const { return tiles * kTileRows; }
  int64_t matrix() const { return width * stride; }
  int64_t tasks() const { return modalities * chunks * groups; }
  int64_t partial_size() const { return round_up(2 + width, kDoubleLanes) + matrix(); }
  // Rows that a task expands at a time for add_symmetric.
  int64_t block() const { return std::min(padded(), 4 * kTileRows); }
  int64_t buffer_size() const { return 2 * width * kTileRows + 2 * block() * stride; }

  // Of component k of modality m at a step.
  int64_t at(int64_t step, int64_t m, int64_t k) const {
    return (step * modalities + m) * components + k;
  }
  double* row(double* base, int64_t m, int64_t k) const {
    return base + (m * components + k) * padded();
  }
  double* sums(int64_t m, int64_t k, int64_t c) const {
    return partial + ((m * components + k) * chunks + c) * partial_size();
  }
  double* dx_tile(int64_t group, int64_t m, int64_t row) const {
    return dx + ((group * modalities + m) * tiles + row / kTileRows) * width * kTileRows;
  }
  double* sum_matrix(double* sums) const { return sums + round_up(2 + width, kDoubleLanes); }
};

/// Cuts `state` up.
FullProblem full_problem(const GmmShape&, Scratch state);
size_t full_state_bytes(const GmmShape&);

/// One task: its modality, rows and components.
struct FullTask {
  int64_t m, c, group, first_row, last_row, first_component, last_component;
  double *tile, *other;  // [d, kTileRows]
  double *left, *right;  // [block, stride]
};
FullTask full_task(const FullProblem&, int64_t index);

/// tile = x - mean for the tile that begins at `row`.
void centred_tile(const FullProblem&, int64_t m, int64_t row, const double* mean, double* tile);

/// Logits of `step`, and of every row the softmax over the components in their place.
void full_logits(const FullProblem&, const FullTask&, int64_t step);
void full_posteriors(const FullProblem&, int64_t m, int64_t c);

/// log max(pi, 1e-8) - log |Sigma| / 2 of the component at `at`.
double full_log_scale(const FullProblem&, int64_t at);

/// Sets a matrix below its diagonal: to 0, to what is above.
void clear_below(const FullProblem&, double* u);
void mirror(const FullProblem&, double* matrix);
double row_sum(const double* v, int64_t n);

void full_forward(const Cpu&, const GmmShape&, In x, Out weights, Out means, Out covariances,
                  Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                  Scratch state);
void full_backward(const Cpu&, const GmmShape&, In x, std::span<const int32_t> choice, In dweights,
                   In dmeans, In dcovariances, In dposteriors, In dmarginals, In dlog_likelihood,
                   InOut dx, Scratch state);

}  // namespace decalign::inline DECALIGN_REAL::mixture
