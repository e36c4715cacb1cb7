#include "autograd/mask.h"

#include "kernels/mask.h"

namespace decalign::inline DECALIGN_REAL {

Tensor mask_rows(Tape& tape, const Tensor& x, In mask) {
  expect(x.shape.size() == 2 && x.shape[0] == std::ssize(mask),
         "mask_rows: x must be [R, d] and mask [R]");
  Tensor y = tape.make(x.shape, x.requires_grad());
  tape.run([&](const auto& be) { mask_rows_forward(be, x.shape[1], x.value, mask, y.value); });
  tape.record({y}, [&tape, x, y, mask](const auto& be) {
    mask_rows_backward(be, x.shape[1], mask, tape.grad(y), tape.grad_sink(x));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
