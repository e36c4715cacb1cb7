// Weighted sum of scalar losses.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// At most so many terms in one call.
inline constexpr int64_t kWeightedSumTerms = 16;

/// value = sum_i weights[i] terms[i][0].   terms: spans of one element; weights in host memory.
/// A term of weight 0 is not read. No terms: 0. Throws std::invalid_argument for more than
/// kWeightedSumTerms terms or a span that is not one element.
void weighted_sum_forward(const Cpu&, std::span<const In> terms, std::span<const double> weights,
                          Out value);
void weighted_sum_forward(const Cuda&, std::span<const In> terms, std::span<const double> weights,
                          Out value);

/// dterms[i][0] += weights[i] * dvalue[0]; empty spans and terms of weight 0 are skipped.
void weighted_sum_backward(const Cpu&, std::span<const double> weights, In dvalue,
                           std::span<const InOut> dterms);
void weighted_sum_backward(const Cuda&, std::span<const double> weights, In dvalue,
                           std::span<const InOut> dterms);

}  // namespace decalign::inline DECALIGN_REAL
