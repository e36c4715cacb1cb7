#include "kernels/weighted_sum.h"

namespace decalign::inline DECALIGN_REAL {

void weighted_sum_forward(const Cpu&, std::span<const In> terms, std::span<const double> weights,
                          Out value) {
  expect(terms.size() == weights.size(), "weighted_sum: one weight per term");
  expect(std::ssize(terms) <= kWeightedSumTerms, "weighted_sum: too many terms");
  expect(value.size() == 1, "weighted_sum: value must have one element");
  for (const In& term : terms)
    expect(term.size() == 1, "weighted_sum: every term must have one element");
  double sum = 0;
  for (size_t i = 0; i < terms.size(); ++i)
    if (weights[i] != 0) sum += weights[i] * double(terms[i][0]);
  value[0] = real(sum);
}

void weighted_sum_backward(const Cpu&, std::span<const double> weights, In dvalue,
                           std::span<const InOut> dterms) {
  expect(dterms.size() == weights.size(), "weighted_sum: one weight per term");
  expect(std::ssize(dterms) <= kWeightedSumTerms, "weighted_sum: too many terms");
  expect(dvalue.size() == 1, "weighted_sum: dvalue must have one element");
  for (const InOut& d : dterms)
    expect(d.size() <= 1, "weighted_sum: every gradient must have one element or none");
  for (size_t i = 0; i < dterms.size(); ++i)
    if (weights[i] != 0 && !dterms[i].empty()) dterms[i][0] += real(weights[i] * double(dvalue[0]));
}

}  // namespace decalign::inline DECALIGN_REAL
