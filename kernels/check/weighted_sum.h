// What weighted_sum asks of its arguments, on every backend.
#pragma once

#include "kernels/weighted_sum.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_weighted_sum_forward(std::span<const In> terms, std::span<const double> weights,
                                       Out value) {
  expect(terms.size() == weights.size(), "weighted_sum: one weight per term");
  expect(std::ssize(terms) <= kWeightedSumTerms, "weighted_sum: too many terms");
  expect(value.size() == 1, "weighted_sum: value must have one element");
  for (const In& term : terms)
    expect(term.size() == 1, "weighted_sum: every term must have one element");
}

inline void check_weighted_sum_backward(std::span<const double> weights, In dvalue,
                                        std::span<const InOut> dterms) {
  expect(dterms.size() == weights.size(), "weighted_sum: one weight per term");
  expect(std::ssize(dterms) <= kWeightedSumTerms, "weighted_sum: too many terms");
  expect(dvalue.size() == 1, "weighted_sum: dvalue must have one element");
  for (const InOut& d : dterms)
    expect(d.size() <= 1, "weighted_sum: every gradient must have one element or none");
}

}  // namespace decalign::inline DECALIGN_REAL
