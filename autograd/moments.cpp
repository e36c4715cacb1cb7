#include "autograd/moments.h"

namespace decalign::inline DECALIGN_REAL {

Tensor moment_matching(Tape& tape, const Tensor& z, Reduction reduction, const Tensor& rest) {
  expect(z.shape.size() == 3, "moments: z must be [M, B, p]");
  const int64_t M = z.shape[0], p = z.shape[2];
  const MomentsShape shape{M, z.shape[1], p, reduction};
  const Tensor value = tape.make({1}, z.requires_grad());
  const auto mean = tape.take<real>(M * p), covariance = tape.take<real>(M * p * p),
             skewness = tape.take<real>(M * p);
  tape.run([&](const auto& be) {
    moments_forward(be, shape, z.value, rest.value, mean, covariance, skewness, value.value,
                    tape.scratch(moments_scratch_bytes(be, shape)));
  });
  tape.record({value}, [&tape, shape, z, rest, mean, covariance, skewness, value](const auto& be) {
    moments_backward(be, shape, z.value, rest.value, mean, covariance, skewness, tape.grad(value),
                     tape.grad_sink(z), tape.grad_sink(rest),
                     tape.scratch(moments_scratch_bytes(be, shape)));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
