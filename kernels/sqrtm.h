// Square roots and inverse square roots of symmetric positive semidefinite matrices.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct SqrtmShape {
  int64_t batch = 0, width = 0;
  double ridge = 0;  ///< added to the diagonal

  /// Doubles of `kept`: eigenvectors [d, d] and eigenvalues [d] of each matrix.
  int64_t kept_size() const { return batch * width * (width + 1); }
};

/// root = S^1/2 and inverse = S^-1/2, symmetric to the bit, of S = (A + A^T) / 2 + ridge I.
///
///   a [batch, d, d], S positive semidefinite, d from 1 to 256
///   root, inverse [batch, d, d]; empty: not wanted
///   kept [kept_size()]: S's eigenvectors, one a row in no particular order, and eigenvalues, for
///   the backward pass; empty: not wanted
///
/// By S = V diag(l) V^T in double. An eigenvalue l within rounding of 0, |l| <= 4 eps max |l| with
/// eps of real, has the root sqrt(max(l, 0)) and no inverse: `inverse` is the pseudo-inverse's
/// root. A negative one beyond that is no covariance's: the whole matrix's results are NaN. Throws
/// std::invalid_argument for sizes out of range, a ridge that is negative or not finite, or a span
/// that does not fit.
void sqrtm_forward(const Cpu&, const SqrtmShape&, In a, Out root, Out inverse,
                   std::span<double> kept, Scratch);
void sqrtm_forward(const Cuda&, const SqrtmShape&, In a, Out root, Out inverse,
                   std::span<double> kept, Scratch);

/// da += V ((V^T G V) o K) V^T for each of the two results, G = (gradient + its transpose) / 2 and
/// K the divided differences of the function: K_ij = 1 / (r_i + r_j) for the root (so that da
/// solves r da + da r = G), -1 / (r_i r_j (r_i + r_j)) for the inverse, r = sqrt(l). (Daleckii,
/// Krein 1965.) Where l_i and l_j are both within rounding of 0 the derivative is infinite and K_ij
/// is 0; where one is, the inverse's is that of a matrix whose rank does not change, 1 / r_j^3.
///
///   droot, dinverse [batch, d, d]; empty: 0
void sqrtm_backward(const Cpu&, const SqrtmShape&, std::span<const double> kept, In droot,
                    In dinverse, InOut da, Scratch);
void sqrtm_backward(const Cuda&, const SqrtmShape&, std::span<const double> kept, In droot,
                    In dinverse, InOut da, Scratch);

/// Work space that either direction needs, in bytes.
size_t sqrtm_scratch_bytes(const Cpu&, const SqrtmShape&);
size_t sqrtm_scratch_bytes(const Cuda&, const SqrtmShape&);

}  // namespace decalign::inline DECALIGN_REAL
