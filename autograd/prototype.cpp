#include "autograd/prototype.h"

namespace decalign::inline DECALIGN_REAL {

Tensor prototype_calibration(Tape& tape, const Tensor& x, const Mixture& mix,
                             const PrototypeOptions& options) {
  expect(x.shape.size() == 3 && mix.means.shape.size() == 3,
         "prototype: x must be [M, B, d] and the means [M, K, d]");
  expect(!options.mahalanobis || mix.covariances.shape.size() == 3,
         "prototype: mahalanobis needs diagonal covariances");
  const PrototypeShape shape{x.shape[0], x.shape[1], mix.means.shape[1], x.shape[2], options};
  const Tensor w = mix.posteriors, mu = mix.means;
  Tensor v = mix.covariances;
  if (!options.mahalanobis) v.value = {};
  const Tensor value = tape.make({1}, any_grad(x, w, mu, v));
  tape.run([&](const auto& be) {
    const auto scratch = tape.take<std::byte>(int64_t(prototype_scratch_bytes(be, shape)));
    prototype_forward(be, shape, x.value, w.value, mu.value, v.value, value.value, scratch);
  });
  tape.record({value}, [&tape, shape, x, w, mu, v, value](const auto& be) {
    const auto scratch = tape.take<std::byte>(int64_t(prototype_scratch_bytes(be, shape)));
    const InOut dv = shape.options.mahalanobis ? tape.grad_sink(v) : InOut();
    prototype_backward(be, shape, x.value, w.value, mu.value, v.value, tape.grad(value),
                       tape.grad_sink(x), tape.grad_sink(w), tape.grad_sink(mu), dv, scratch);
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
