#include "autograd/mmd.h"

#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {

Tensor mmd(Tape& tape, const Tensor& z, double bandwidth, const Tensor& rest) {
  expect(z.shape.size() == 3, "mmd: z must be [M, B, p]");
  const MmdShape shape{z.shape[0], z.shape[1], z.shape[2], bandwidth};
  const Tensor value = tape.make({1}, z.requires_grad());
  const auto gradient = tape.take<real>(value.requires_grad() ? z.size() : 0);
  tape.run([&](const auto& be) {
    mmd_forward(be, shape, z.value, rest.value, value.value, gradient,
                tape.scratch(mmd_scratch_bytes(be, shape)));
  });
  tape.record({value}, [&tape, z, gradient, value](const auto& be) {
    scaled_add(be, tape.grad(value), gradient, tape.grad_sink(z));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
