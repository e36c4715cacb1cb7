#include "autograd/mmd.h"

namespace decalign::inline DECALIGN_REAL {

Tensor mmd(Tape& tape, const Tensor& z, double bandwidth, const Tensor& rest) {
  expect(z.shape.size() == 3, "mmd: z must be [M, B, p]");
  const MmdShape shape{z.shape[0], z.shape[1], z.shape[2], bandwidth};
  const Tensor value = tape.make({1}, z.requires_grad());
  const int64_t size = value.requires_grad() ? z.size() : 0;
  const auto gradient = tape.take<real>(size), gradient_rest = tape.take<real>(size);
  tape.run([&](const auto& be) {
    mmd_forward(be, shape, z.value, rest.value, value.value, gradient, gradient_rest,
                tape.scratch(mmd_scratch_bytes(be, shape)));
  });
  tape.record({value}, [&tape, z, rest, gradient, gradient_rest, value](const auto& be) {
    mmd_backward(be, gradient, gradient_rest, tape.grad(value), tape.grad_sink(z),
                 tape.grad_sink(rest));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
