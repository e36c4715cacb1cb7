#include "autograd/weighted_sum.h"

#include <array>

namespace decalign::inline DECALIGN_REAL {

Tensor weighted_sum(Tape& tape, std::span<const Tensor> terms, std::span<const double> weights) {
  expect(terms.size() == weights.size(), "weighted_sum: one weight per term");
  expect(std::ssize(terms) <= kWeightedSumTerms, "weighted_sum: too many terms");
  std::array<In, kWeightedSumTerms> values;
  std::array<Tensor, kWeightedSumTerms> kept;
  std::array<double, kWeightedSumTerms> factors{};
  size_t n = 0;
  bool grad = false;
  for (size_t i = 0; i < terms.size(); ++i) {
    if (weights[i] == 0) continue;
    grad = grad || terms[i].requires_grad();
    values[n] = terms[i].value;
    kept[n] = terms[i];
    factors[n++] = weights[i];
  }
  const Tensor value = tape.make({1}, grad);
  tape.run([&](const auto& be) {
    weighted_sum_forward(be, std::span(values).first(n), std::span(factors).first(n), value.value);
  });
  tape.record({value}, [&tape, kept, factors, n, value](const auto& be) {
    std::array<InOut, kWeightedSumTerms> gradients;
    for (size_t i = 0; i < n; ++i) gradients[i] = tape.grad_sink(kept[i]);
    weighted_sum_backward(be, std::span(factors).first(n), tape.grad(value),
                          std::span<const InOut>(gradients).first(n));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
