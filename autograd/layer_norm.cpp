#include "autograd/layer_norm.h"

#include "kernels/layer_norm.h"

namespace decalign::inline DECALIGN_REAL {

Tensor layer_norm(Tape& tape, const Tensor& x, const Tensor& z,
                  std::span<const LayerNormPart> caller_parts, const Dropout& dropout, double eps) {
  expect(x.shape.size() == 2 && (!z || z.shape == x.shape),
         "layer_norm: x and z must be [rows, width]");
  LayerNormShape s;
  s.rows = x.shape[0], s.width = x.shape[1], s.dropout = z ? dropout : Dropout{};
  s.eps = eps;
  std::vector<LayerNormPart> parts(caller_parts.begin(), caller_parts.end());
  bool wants_grad = any_grad(x, z);
  const auto groups = tape.list<LayerNormGroup>(std::ssize(parts));
  for (size_t g = 0; g < parts.size(); ++g) {
    std::construct_at(
        &groups[g],
        LayerNormGroup{
            parts[g].row, parts[g].rows, parts[g].weight.value, parts[g].bias.value, {}, {}});
    wants_grad = wants_grad || any_grad(parts[g].weight, parts[g].bias);
  }
  Tensor y = tape.make(x.shape, wants_grad);
  const auto sum = tape.take<real>(x.size()), stats = tape.take<real>(2 * s.rows);
  tape.run([&](const auto& be) {
    layer_norm_forward(be, s, groups, x.value, z.value, sum, stats, y.value);
  });
  tape.record({y}, [&tape, s, x, z, y, groups, parts, sum, stats](const auto& be) {
    for (size_t g = 0; g < parts.size(); ++g) {
      groups[g].dweight = tape.grad_sink(parts[g].weight);
      groups[g].dbias = tape.grad_sink(parts[g].bias);
    }
    layer_norm_backward(be, s, groups, sum, stats, tape.grad(y), tape.grad_sink(x),
                        tape.grad_sink(z), tape.scratch(layer_norm_scratch_bytes(be, s)));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
