#include "autograd/gelu.h"

#include "kernels/gelu.h"

namespace decalign::inline DECALIGN_REAL {

Tensor gelu(Tape& tape, const Tensor& x) {
  const Tensor y = tape.make(x.shape, x.requires_grad());
  tape.run([&](const auto& be) { gelu_forward(be, x.value, y.value); });
  tape.record({y}, [&tape, x, y](const auto& be) {
    gelu_backward(be, x.value, tape.grad(y), tape.grad_sink(x));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
