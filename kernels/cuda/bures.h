// Where a pair of prototypes is in the cost, for the forward and the backward kernel.
#pragma once

#include "kernels/carve.h"
#include "kernels/check/bures.h"
#include "kernels/cuda/blocks.h"

namespace decalign::inline DECALIGN_REAL::bures {

// A BuresShape as kernels want it.
struct Problem {
  int M, K, d, r;
  bool all, covariance;
  double scale, ridge;
  int64_t prototypes, pairs;
};

inline Problem problem(const BuresShape& s) {
  return {int(s.modalities),
          int(s.components),
          int(s.width),
          int(s.rank),
          s.options.pairing == Pairing::all,
          s.options.spread == Spread::covariance,
          factor(s),
          s.options.ridge,
          s.prototypes(),
          s.pairs()};
}

// The prototypes of pair `at`, numbered through.
__device__ inline void pair_at(const Problem& z, int64_t at, int64_t& one, int64_t& other) {
  const int64_t block = z.all ? int64_t(z.K) * z.K : z.K, rest = at % block;
  int p = int(at / block), i = 0;
  for (; p >= z.M - 1 - i; ++i) p -= z.M - 1 - i;
  const int j = i + 1 + p;
  one = int64_t(i) * z.K + (z.all ? rest / z.K : rest);
  other = int64_t(j) * z.K + (z.all ? rest % z.K : rest);
}

// f(other, at, first) for the pairs of prototype `one`: cost[at]; whether it is the pair's first.
template <class F>
__device__ void for_partners(const Problem& z, int64_t one, F f) {
  const int i = int(one / z.K), a = int(one % z.K);
  for (int j = 0; j < z.M; ++j) {
    if (j == i) continue;
    const int low = min(i, j), high = max(i, j);
    const int64_t p = int64_t(low) * z.M - low * (low + 1) / 2 + high - low - 1;
    for (int b = z.all ? 0 : a; b < (z.all ? z.K : a + 1); ++b)
      f(int64_t(j) * z.K + b,
        z.all ? (p * z.K + (i < j ? a : b)) * z.K + (i < j ? b : a) : p * z.K + a, i < j);
  }
}

using small::Blocks;
using small::blocks;
inline Blocks forward_blocks(const BuresShape& s) {
  return blocks(4 * small::matrix_size(int(s.rank), int(s.rank)));
}
inline Blocks factor_blocks(const BuresShape& s) {
  return blocks(small::matrix_size(int(s.width), int(s.width)));
}
inline Blocks backward_blocks(const BuresShape& s) {
  return blocks(small::matrix_size(int(s.width), int(s.rank)) +
                small::matrix_size(int(s.width), int(s.width)));
}

}  // namespace decalign::inline DECALIGN_REAL::bures
