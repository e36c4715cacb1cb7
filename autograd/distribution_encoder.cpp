#include "autograd/distribution_encoder.h"

#include <memory>

#include "kernels/distribution_encoder.h"

namespace decalign::inline DECALIGN_REAL {

Distributions distribution_encoder(Tape& tape, const Tensor& x,
                                   std::span<const DistributionEncoderPart> caller_parts,
                                   const Dropout& dropout) {
  const std::vector<DistributionEncoderPart> parts(caller_parts.begin(), caller_parts.end());
  expect(x.shape.size() == 3 && x.shape[0] == std::ssize(parts),
         "distribution_encoder: x must be [M, B, width], with one part per modality");
  DistributionEncoderShape s;
  s.batch = x.shape[1], s.width = x.shape[2], s.dropout = dropout;
  if (!parts.empty()) s.hidden = parts[0].bias1.size(), s.outputs = parts[0].bias2.size();
  bool wants_grad = x.requires_grad();
  const auto groups = tape.list<DistributionEncoderGroup>(std::ssize(parts));
  for (size_t m = 0; m < parts.size(); ++m) {
    const DistributionEncoderPart& p = parts[m];
    std::construct_at(
        &groups[m],
        DistributionEncoderGroup{
            p.weight1.value, p.bias1.value, p.weight2.value, p.bias2.value, {}, {}, {}, {}});
    wants_grad = wants_grad || any_grad(p.weight1, p.bias1, p.weight2, p.bias2);
  }
  const Shape shape{x.shape[0], s.batch, s.outputs};
  const Tensor z = tape.make(shape, wants_grad), rest = tape.make(shape, wants_grad);
  const auto hidden = tape.take<double>(x.shape[0] * s.batch * s.hidden);
  tape.run([&](const auto& be) {
    distribution_encoder_forward(be, s, groups, x.value, z.value, rest.value, hidden);
  });
  tape.record({z, rest}, [&tape, s, x, z, rest, hidden, groups, parts](const auto& be) {
    for (size_t m = 0; m < parts.size(); ++m) {
      groups[m].dweight1 = tape.grad_sink(parts[m].weight1);
      groups[m].dbias1 = tape.grad_sink(parts[m].bias1);
      groups[m].dweight2 = tape.grad_sink(parts[m].weight2);
      groups[m].dbias2 = tape.grad_sink(parts[m].bias2);
    }
    distribution_encoder_backward(
        be, s, groups, x.value, hidden, tape.grad(z), tape.grad(rest), tape.grad_sink(x),
        tape.scratch(distribution_encoder_scratch_bytes(be, s, std::ssize(groups))));
  });
  return {z, rest};
}

}  // namespace decalign::inline DECALIGN_REAL
