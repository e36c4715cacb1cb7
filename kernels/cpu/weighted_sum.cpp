#include "kernels/weighted_sum.h"

#include "kernels/check/weighted_sum.h"

namespace decalign::inline DECALIGN_REAL {

void weighted_sum_forward(const Cpu&, std::span<const In> terms, std::span<const double> weights,
                          Out value) {
  check_weighted_sum_forward(terms, weights, value);
  double sum = 0;
  for (size_t i = 0; i < terms.size(); ++i)
    if (weights[i] != 0) sum += weights[i] * double(terms[i][0]);
  value[0] = real(sum);
}

void weighted_sum_backward(const Cpu&, std::span<const double> weights, In dvalue,
                           std::span<const InOut> dterms) {
  check_weighted_sum_backward(weights, dvalue, dterms);
  for (size_t i = 0; i < dterms.size(); ++i)
    if (weights[i] != 0 && !dterms[i].empty()) dterms[i][0] += real(weights[i] * double(dvalue[0]));
}

}  // namespace decalign::inline DECALIGN_REAL
