#include "autograd/gaussian_cost.h"

namespace decalign::inline DECALIGN_REAL {

Tensor gaussian_cost(Tape& tape, const Tensor& means, const Tensor& variances,
                     Reduction reduction) {
  expect(means.shape.size() == 3 && means.shape == variances.shape,
         "gaussian_cost: means and variances must be [M, K, d]");
  const int64_t M = means.shape[0], K = means.shape[1];
  const GaussianCostShape shape{M, K, means.shape[2], reduction};
  const Tensor cost = tape.make({M * (M - 1) / 2, K, K}, any_grad(means, variances));
  tape.run([&](const auto& be) {
    gaussian_cost_forward(be, shape, means.value, variances.value, cost.value);
  });
  tape.record({cost}, [&tape, shape, means, variances, cost](const auto& be) {
    gaussian_cost_backward(be, shape, means.value, variances.value, tape.grad(cost),
                           tape.grad_sink(means), tape.grad_sink(variances));
  });
  return cost;
}

}  // namespace decalign::inline DECALIGN_REAL
