#include "autograd/concat.h"

#include "kernels/concat.h"

namespace decalign::inline DECALIGN_REAL {

Tensor concat(Tape& tape, std::span<const Tensor> caller_parts, std::span<const uint8_t> active) {
  expect(!caller_parts.empty(), "concat: no parts");
  std::vector<Tensor> parts(caller_parts.begin(), caller_parts.end());
  bool wants_grad = false;
  std::vector<In> values;
  for (const Tensor& p : parts) {
    expect(p.shape.size() == 3 && p.shape == parts[0].shape, "concat: a part must be [A, B, d]");
    wants_grad = wants_grad || p.requires_grad();
    values.push_back(p.value);
  }
  const ConcatShape s{parts[0].shape[1], parts[0].shape[2], tape.keep<uint8_t>(active)};
  expect(parts[0].shape[0] == s.active_count(), "concat: a part must hold the active modalities");
  Tensor y = tape.make({s.batch, std::ssize(parts) * s.modalities() * s.width}, wants_grad);
  tape.run([&](const auto& be) { concat_forward(be, s, values, y.value); });
  tape.record({y}, [&tape, s, parts, y](const auto& be) {
    std::vector<InOut> gradients;
    for (const Tensor& p : parts) gradients.push_back(tape.grad_sink(p));
    concat_backward(be, s, tape.grad(y), gradients);
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
