// Squared Wasserstein distances between Gaussians: Bures-Wasserstein costs of pairs of prototypes.
#pragma once

#include "kernels/backend.h"
#include "kernels/reduction.h"

namespace decalign::inline DECALIGN_REAL {

/// How the spread of a Gaussian is given.
enum class Spread {
  covariance,  ///< S [d, d], taken as (S + S^T) / 2. rank = d
  factor,      ///< L [d, rank], S = L L^T: Cholesky, or centred samples over sqrt(n). Any rank
  variances    ///< S = diag(v), v [d]. rank = 1
};

/// Which prototypes of two modalities i < j are compared.
enum class Pairing {
  all,     ///< every component of i with every one of j: cost [pairs, K, K]
  matched  ///< component k of i with component k of j: cost [pairs, K]
};

struct BuresOptions {
  Spread spread = Spread::covariance;
  Pairing pairing = Pairing::all;
  Reduction reduction = Reduction::sum;  ///< mean: both terms over the width
  double ridge = 0;                      ///< added to every variance; 0 where factors are given
};

struct BuresShape {
  int64_t modalities = 0, components = 0, width = 0;
  int64_t rank = 0;  ///< columns of an element of `spread`
  BuresOptions options;

  int64_t prototypes() const { return modalities * components; }
  int64_t pairs() const {
    return modalities * (modalities - 1) / 2 * components *
           (options.pairing == Pairing::all ? components : 1);
  }
  int64_t spread_size() const { return prototypes() * width * rank; }
  /// Variances alone, by name or because there is one coordinate.
  bool diagonal() const {
    return options.spread == Spread::variances ||
           (options.spread == Spread::covariance && width == 1);
  }
  /// Elements of `kept`: two displacements a pair.
  int64_t kept_size() const { return diagonal() ? 0 : 2 * pairs() * width * rank; }
};

/// cost = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2 for the pairs of modalities
/// i < j in lexicographic order: (0, 1), (0, 2), ..., (1, 2), ...
///
/// In the Procrustes form (Bhatia, Jain, Lim 2019, theorem 1): the second part is the minimum over
/// orthogonal Q of |L2 - L1 Q|^2, S = L L^T, reached by the polar factor Q of L1^T L2. It is a sum
/// of squares, 0 for equal Gaussians, and its gradient needs no inverse of L1^T L2.
///
///   means [M, K, d];  spread [M, K, d, rank];  cost [pairs] as Pairing says
///   kept [kept_size()]: L1 - L2 Q^T and L2 - L1 Q of each pair, for the backward pass; empty: not
///   wanted
///
/// A covariance is decomposed as S + ridge I = L L^T, L lower triangular, without pivoting; a pivot
/// within rounding (4 eps of its diagonal element) of 0 makes a column of zeros, a negative one
/// beyond that NaN. d and rank from 1 to 256 (variances: any d).
/// Throws std::invalid_argument for sizes out of range, a ridge that is negative, not finite or
/// given with factors, or a span that does not fit.
void bures_forward(const Cpu&, const BuresShape&, In means, In spread, Out cost, Out kept, Scratch);
void bures_forward(const Cuda&, const BuresShape&, In means, In spread, Out cost, Out kept,
                   Scratch);

/// dmeans, dspread accumulate. With T the optimal map, dcost / dS1 = I - T, symmetric; dcost / dL1
/// = 2 (L1 - L2 Q^T); dcost / dv1 = 1 - sqrt(v2 / v1). A direction in which S1 has variance 0 (a
/// zero pivot, v1 = 0) gets 0 where the derivative is infinite. Where L1^T L2 is singular the cost
/// has a kink and one of its subgradients is taken. Gradients are 0 for equal Gaussians and |dL|
/// never exceeds 2 (|L1| + |L2|).
void bures_backward(const Cpu&, const BuresShape&, In means, In spread, In kept, In dcost,
                    InOut dmeans, InOut dspread, Scratch);
void bures_backward(const Cuda&, const BuresShape&, In means, In spread, In kept, In dcost,
                    InOut dmeans, InOut dspread, Scratch);

/// Work space that either direction needs, in bytes.
size_t bures_scratch_bytes(const Cpu&, const BuresShape&);
size_t bures_scratch_bytes(const Cuda&, const BuresShape&);

}  // namespace decalign::inline DECALIGN_REAL
