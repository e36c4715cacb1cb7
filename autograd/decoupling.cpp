#include "autograd/decoupling.h"

namespace decalign::inline DECALIGN_REAL {

Tensor decoupling(Tape& tape, const Rows& rows, const Tensor& s, const Tensor& c,
                  std::span<const uint8_t> active, DecouplingLoss loss) {
  expect(s.shape.size() == 2 && s.shape == c.shape, "decoupling: s and c must be [R, d]");
  DecouplingShape shape{rows, s.shape[1], tape.keep(active), loss};
  shape.rows.first = tape.keep(rows.first);
  const Tensor value = tape.make({1}, any_grad(s, c));
  const auto stats = tape.take<real>(4 * rows.sequences());
  tape.run(
      [&](const auto& be) { decoupling_forward(be, shape, s.value, c.value, stats, value.value); });
  tape.record({value}, [&tape, shape, s, c, stats, value](const auto& be) {
    decoupling_backward(be, shape, s.value, c.value, stats, tape.grad(value), tape.grad_sink(s),
                        tape.grad_sink(c));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
