// What the two passes of a full-covariance gmm share on the device: sizes, where a modality's
// arrays lie, solves with a triangular factor.
//
// A block has one modality and goes through every step alone. Its warps share out (component, tile
// of 32 rows): a lane has a row, whose d numbers lie 32 apart; all lanes read the same element of
// the factor. Everything lies in the state.
#pragma once

#include "kernels/cuda/gmm_steps.h"

namespace decalign::inline DECALIGN_REAL::gmm_full {

using gmm_steps::kCountFloor;
using gmm_steps::kMassFloor;
using gmm_steps::kThreads;
using gmm_steps::kWarps;
using gmm_steps::kWeightFloor;
using gmm_steps::take;

struct Sizes {
  int batch, components, width, iterations;
  int tiles;       // of 32 rows
  bool last_step;  // the gradient stops at the last M-step
  double floor, ridge;
  int64_t share;  // doubles of the state per modality

  __host__ __device__ int64_t padded() const { return int64_t(tiles) * 32; }
  __host__ __device__ int64_t matrix() const { return int64_t(width) * width; }
};

inline Sizes sizes(const GmmShape& shape);

// One modality's part of the state. U is the upper factor of Sigma = U^T U.
struct State {
  double *weights, *counts;  // [iterations + 1, K]
  double* means;             // [iterations + 1, K, d]
  double* factors;           // [iterations + 1, K, d, d]
  double* posteriors;        // [iterations + 1, K, padded rows]
  double* centre;            // [d]
  double* rho;               // [1]
  double* x;                 // [B, d]
  double* nearest;           // [2, B]; in the end the rows' log-likelihoods
  double* constants;         // [K]: logits' constants; totals of the logits' gradients
  double* tile;              // [warps, d, 32]
  // Of the way back.
  double* product;                   // [K, d, padded rows]: G e, then Sigma^-1 e
  double* squares;                   // [K, padded rows]
  double* dlogits;                   // [K, padded rows]
  double* inverses;                  // [K, d, ceil32(d)]
  double *dweights, *drho, *traces;  // [K]
  double* dmeans;                    // [K, d]
  double* dcovariances;              // [K, d, d]
  double* dx;                        // [B, d]

  // The pointers' sum of sizes where `at` is null.
  __host__ __device__ int64_t carve(const Sizes& s, double* at) {
    const int64_t S = s.iterations + 1, K = s.components, d = s.width, n = s.padded();
    int64_t used = 0;
    const auto part = [&](double*& p, int64_t size) {
      p = at ? at + used : nullptr;
      used += (size + 3) / 4 * 4;
    };
    part(weights, S * K);
    part(counts, S * K);
    part(means, S * K * d);
    part(factors, S * K * s.matrix());
    part(posteriors, S * K * n);
    part(centre, d);
    part(rho, 1);
    part(x, s.batch * d);
    part(nearest, 2 * int64_t(s.batch));
    part(constants, K);
    part(tile, kWarps * d * 32);
    part(product, K * d * n);
    part(squares, K * n);
    part(dlogits, K * n);
    part(inverses, K * d * ((d + 31) / 32 * 32));
    part(dweights, K);
    part(drho, K);
    part(traces, K);
    part(dmeans, K * d);
    part(dcovariances, K * s.matrix());
    part(dx, s.batch * d);
    return used;
  }
};

inline Sizes sizes(const GmmShape& shape) {
  Sizes s;
  s.batch = int(shape.batch);
  s.components = int(shape.options.components);
  s.width = int(shape.width);
  s.iterations = int(shape.options.iterations);
  s.tiles = ceil_div(s.batch, 32);
  s.last_step = shape.options.gradient == GmmGradient::last_step;
  s.floor = shape.options.variance_floor;
  s.ridge = shape.options.ridge;
  s.share = ceil_div<int64_t>(State().carve(s, nullptr), 8) * 8;
  return s;
}

// f(i) for i in [0, n), by the block's threads, and by its warps.
template <class F>
__device__ void each(int64_t n, F&& f) {
  for (int64_t i = threadIdx.x; i < n; i += kThreads) f(i);
}
template <class F>
__device__ void by_warp(int64_t n, F&& f) {
  for (int64_t i = threadIdx.x / 32; i < n; i += kWarps) f(i);
}

// The lane's column of y [d, stride] becomes U^-T y; the sum of its squares.
__device__ inline double solve_lower(int d, const double* u, double* y, int64_t stride) {
  constexpr int kBlock = 4;
  double square = 0;
  for (int j0 = 0; j0 < d; j0 += kBlock) {
    double acc[kBlock];
#pragma unroll
    for (int r = 0; r < kBlock; ++r) acc[r] = j0 + r < d ? y[(j0 + r) * stride] : 0;
    for (int i = 0; i < j0; ++i) {
      const double above = y[i * stride], *row = u + i * d + j0;
#pragma unroll
      for (int r = 0; r < kBlock; ++r)
        if (j0 + r < d) acc[r] -= row[r] * above;
    }
#pragma unroll
    for (int r = 0; r < kBlock; ++r) {
      if (j0 + r >= d) break;
#pragma unroll
      for (int p = 0; p < r; ++p) acc[r] -= u[(j0 + p) * d + j0 + r] * acc[p];
      acc[r] /= u[(j0 + r) * d + j0 + r];
      square += acc[r] * acc[r];
      y[(j0 + r) * stride] = acc[r];
    }
  }
  return square;
}

// The lane's column of y becomes U^-1 y.
__device__ inline void solve_upper(int d, const double* u, double* y, int64_t stride) {
  for (int i = d - 1; i >= 0; --i) {
    double even = y[i * stride], odd = 0;
    int j = i + 1;
    for (; j + 1 < d; j += 2) {
      even -= u[i * d + j] * y[j * stride];
      odd -= u[i * d + j + 1] * y[(j + 1) * stride];
    }
    if (j < d) even -= u[i * d + j] * y[j * stride];
    y[i * stride] = (even + odd) / u[i * d + i];
  }
}

// The lane's row minus the mean; rows beyond the last repeat it.
__device__ inline void centred(const Sizes& s, const double* x, int tile, const double* mean,
                               double* y, int64_t stride) {
  const int n = min(tile * 32 + int(threadIdx.x) % 32, s.batch - 1);
  for (int j = 0; j < s.width; ++j) y[j * stride] = x[int64_t(n) * s.width + j] - mean[j];
}

}  // namespace decalign::inline DECALIGN_REAL::gmm_full

namespace decalign::inline DECALIGN_REAL {

void gmm_full_forward(const Cuda&, const GmmShape&, In x, Out weights, Out means, Out covariances,
                      Out posteriors, Out marginals, Out log_likelihood, std::span<int32_t> choice,
                      Scratch state);
void gmm_full_backward(const Cuda&, const GmmShape&, std::span<const int32_t> choice, In dweights,
                       In dmeans, In dcovariances, In dposteriors, In dmarginals,
                       In dlog_likelihood, InOut dx, Scratch state);

}  // namespace decalign::inline DECALIGN_REAL
