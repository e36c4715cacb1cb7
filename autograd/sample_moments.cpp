#include "autograd/sample_moments.h"

namespace decalign::inline DECALIGN_REAL {

SampleMoments sample_moments(Tape& tape, const Tensor& x, const SampleMomentsOptions& options) {
  expect(x.shape.size() == 2, "sample_moments: x must be [N, d]");
  const int64_t d = x.shape[1];
  const SampleMomentsShape shape{x.shape[0], d, options.covariance, options.correction,
                                 options.variance_floor};
  const auto make = [&](Shape s) { return tape.make(std::move(s), x.requires_grad()); };
  SampleMoments m{make({d}), make({d}), make({d}), {}};
  if (options.covariance) m.covariance = make({d, d});
  const auto state = tape.take<double>(sample_moments_state_size(shape));
  tape.run([&](const auto& be) {
    sample_moments_collect(be, shape, x.value, state,
                           tape.scratch(sample_moments_scratch_bytes(be, shape)));
    sample_moments_forward(be, shape, state, m.mean.value, m.variance.value, m.skewness.value,
                           m.covariance.value);
  });
  tape.record(
      {m.mean, m.variance, m.skewness, m.covariance}, [&tape, shape, x, m, state](const auto& be) {
        sample_moments_backward(be, shape, x.value, state, tape.grad(m.mean), tape.grad(m.variance),
                                tape.grad(m.skewness), tape.grad(m.covariance), tape.grad_sink(x),
                                tape.scratch(sample_moments_scratch_bytes(be, shape)));
      });
  return m;
}

}  // namespace decalign::inline DECALIGN_REAL
