#include "autograd/moments.h"

namespace decalign::inline DECALIGN_REAL {

Tensor moment_matching(Tape& tape, const Tensor& z, Reduction reduction) {
  expect(z.shape.size() == 3, "moments: z must be [M, B, p]");
  const int64_t M = z.shape[0], p = z.shape[2];
  const MomentsShape shape{M, z.shape[1], p, reduction};
  const Tensor value = tape.make({1}, z.requires_grad());
  const auto mean = tape.take<real>(M * p), covariance = tape.take<real>(M * p * p),
             skewness = tape.take<real>(M * p);
  tape.run([&](const auto& be) {
    moments_forward(be, shape, z.value, mean, covariance, skewness, value.value);
  });
  tape.record({value}, [&tape, shape, z, mean, covariance, skewness, value](const auto& be) {
    const auto scratch = tape.take<std::byte>(int64_t(moments_scratch_bytes(be, shape)));
    moments_backward(be, shape, z.value, mean, covariance, skewness, tape.grad(value),
                     tape.grad_sink(z), scratch);
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
