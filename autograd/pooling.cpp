#include "autograd/pooling.h"

#include "autograd/keep_rows.h"
#include "kernels/pooling.h"

namespace decalign::inline DECALIGN_REAL {

Tensor pooling(Tape& tape, const Rows& caller_rows, const Tensor& x, In mask) {
  expect(x.shape.size() == 2, "pooling: x must be [R, d]");
  const Rows rows = keep_rows(tape, caller_rows);
  const int64_t width = x.shape[1];
  Tensor y = tape.make({rows.modalities, rows.batch, width}, x.requires_grad());
  tape.run([&](const auto& be) { pooling_forward(be, rows, width, x.value, mask, y.value); });
  tape.record({y}, [&tape, rows, mask, width, x, y](const auto& be) {
    pooling_backward(be, rows, width, mask, tape.grad(y), tape.grad_sink(x));
  });
  return y;
}

Tensor temporal_pooling(Tape& tape, const Rows& caller_from, const Rows& caller_to,
                        const Tensor& x) {
  expect(x.shape.size() == 2, "temporal_pooling: x must be [R, d]");
  const Rows from = keep_rows(tape, caller_from), to = keep_rows(tape, caller_to);
  const int64_t width = x.shape[1];
  Tensor y = tape.make({to.total(), width}, x.requires_grad());
  tape.run(
      [&](const auto& be) { temporal_pooling_forward(be, from, to, width, x.value, y.value); });
  tape.record({y}, [&tape, from, to, width, x, y](const auto& be) {
    temporal_pooling_backward(be, from, to, width, tape.grad(y), tape.grad_sink(x));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
