#include "autograd/sqrtm.h"

namespace decalign::inline DECALIGN_REAL {

MatrixRoots sqrtm(Tape& tape, const Tensor& a, Roots wanted, double ridge) {
  expect(a.shape.size() == 3 && a.shape[1] == a.shape[2], "sqrtm: a must be [batch, d, d]");
  const SqrtmShape shape{a.shape[0], a.shape[1], ridge};
  MatrixRoots y;
  if (wanted != Roots::inverse) y.root = tape.make(a.shape, a.requires_grad());
  if (wanted != Roots::root) y.inverse = tape.make(a.shape, a.requires_grad());
  const auto kept = tape.take<double>(a.requires_grad() ? shape.kept_size() : 0);
  tape.run([&](const auto& be) {
    sqrtm_forward(be, shape, a.value, y.root.value, y.inverse.value, kept,
                  tape.scratch(sqrtm_scratch_bytes(be, shape)));
  });
  tape.record({y.root, y.inverse}, [&tape, shape, a, y, kept](const auto& be) {
    const Scratch scratch = tape.scratch(sqrtm_scratch_bytes(be, shape));
    sqrtm_backward(be, shape, kept, tape.grad(y.root), tape.grad(y.inverse), tape.grad_sink(a),
                   scratch);
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
