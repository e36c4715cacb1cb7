#include "autograd/recomputed.h"

#include "kernels/fill.h"
#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {

Tensor recomputed(Tape& tape, const Tensor& x,
                  const std::function<Tensor(Tape&, const Tensor& x)>& f) {
  Tape& inner = tape.inner();
  inner.reset();
  inner.set_recording(false);
  const Tensor once = f(inner, inner.leaf(x.shape, x.value));
  Tensor y = tape.make(once.shape, true);
  const auto one = tape.take<real>(1);
  tape.run([&](const auto& be) {
    fill(be, 1, one);
    fill(be, 0, y.value);
    scaled_add(be, one, once.value, y.value);
  });
  tape.record({y}, [&tape, x, y, f](const auto&) {
    Tape& again = tape.inner();
    again.reset();
    again.set_recording(true);
    const Tensor result = f(again, again.leaf(x.shape, x.value, tape.grad_sink(x)));
    again.backward(result, tape.grad(y));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
