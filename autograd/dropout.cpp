#include "autograd/dropout.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

Tensor gather(Tape& tape, const Tensor& x, Shape shape, const DropoutShape& s,
              std::span<const RowCopy> caller_copies) {
  const auto copies = tape.keep<RowCopy>(caller_copies);
  Tensor y = tape.make(std::move(shape), x.requires_grad());
  tape.run([&](const auto& be) { dropout_forward(be, s, copies, x.value, y.value); });
  tape.record({y}, [&tape, s, x, y, copies](const auto& be) {
    dropout_backward(be, s, copies, tape.grad(y), tape.grad_sink(x));
  });
  return y;
}

}  // namespace

Tensor dropout(Tape& tape, const Tensor& x, const Dropout& d) {
  if (!d.on()) return x;
  const RowCopy all{0, 0, x.size()};
  return gather(tape, x, x.shape, {x.size(), x.size(), 1, 1, d}, {&all, 1});
}

Tensor embed(Tape& tape, const Tensor& x, std::span<const RowCopy> copies, int64_t y_rows,
             double scale, const Dropout& d) {
  expect(x.shape.size() == 2, "embed: x must be [R, d]");
  return gather(tape, x, {y_rows, x.shape[1]}, {x.shape[0], y_rows, x.shape[1], scale, d}, copies);
}

}  // namespace decalign::inline DECALIGN_REAL
