#include "autograd/gmm.h"

namespace decalign::inline DECALIGN_REAL {

Mixture gmm(Tape& tape, const Tensor& x, const GmmOptions& options) {
  expect(x.shape.size() == 3, "gmm: x must be [M, B, d]");
  const int64_t M = x.shape[0], B = x.shape[1], d = x.shape[2], K = options.components;
  expect(K >= 1 && options.iterations >= 0, "gmm: sizes out of range");
  const GmmShape shape{M, B, d, options};
  const bool grad = x.requires_grad();
  const bool full = options.covariance == GmmCovariance::full;
  const Mixture mix{tape.make({M, K}, grad),
                    tape.make({M, K, d}, grad),
                    tape.make(full ? Shape{M, K, d, d} : Shape{M, K, d}, grad),
                    tape.make({M, B, K}, grad),
                    tape.make({M, K}, grad),
                    tape.make({M}, grad)};
  const auto choice = tape.take<int32_t>(M * K);
  Scratch state;
  tape.run([&](const auto& be) {
    state = tape.take<std::byte>(int64_t(gmm_state_bytes(be, shape)));
    gmm_forward(be, shape, x.value, mix.weights.value, mix.means.value, mix.covariances.value,
                mix.posteriors.value, mix.marginals.value, mix.log_likelihood.value, choice, state);
  });
  tape.record(
      {mix.weights, mix.means, mix.covariances, mix.posteriors, mix.marginals, mix.log_likelihood},
      [&tape, shape, x, mix, choice, state](const auto& be) {
        gmm_backward(be, shape, x.value, choice, tape.grad(mix.weights), tape.grad(mix.means),
                     tape.grad(mix.covariances), tape.grad(mix.posteriors),
                     tape.grad(mix.marginals), tape.grad(mix.log_likelihood), tape.grad_sink(x),
                     state);
      });
  return mix;
}

}  // namespace decalign::inline DECALIGN_REAL
