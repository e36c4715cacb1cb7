#include "autograd/feed_forward.h"

#include "kernels/feed_forward.h"

namespace decalign::inline DECALIGN_REAL {

Tensor feed_forward(Tape& tape, const Tensor& x, std::span<const FeedForwardPart> caller_parts,
                    const Dropout& dropout) {
  expect(x.shape.size() == 2, "feed_forward: x must be [rows, width]");
  const std::vector<FeedForwardPart> parts(caller_parts.begin(), caller_parts.end());
  FeedForwardShape s;
  s.rows = x.shape[0], s.width = x.shape[1], s.dropout = dropout;
  if (!parts.empty() && !parts[0].weight1.shape.empty()) s.hidden = parts[0].weight1.shape[0];
  bool wants_grad = x.requires_grad();
  const auto groups = tape.list<FeedForwardGroup>(std::ssize(parts));
  for (size_t g = 0; g < parts.size(); ++g) {
    const FeedForwardPart& p = parts[g];
    expect(p.weight1.shape == Shape{s.hidden, s.width},
           "feed_forward: weight1 must be [hidden, width]");
    expect(p.weight2.shape == Shape{s.width, s.hidden},
           "feed_forward: weight2 must be [width, hidden]");
    std::construct_at(&groups[g], FeedForwardGroup{p.row,
                                                   p.rows,
                                                   p.weight1.value,
                                                   p.bias1.value,
                                                   p.weight2.value,
                                                   p.bias2.value,
                                                   {},
                                                   {},
                                                   {},
                                                   {}});
    wants_grad = wants_grad || any_grad(p.weight1, p.bias1, p.weight2, p.bias2);
  }
  Tensor y = tape.make(x.shape, wants_grad);
  const auto h = tape.take<real>(s.rows * s.hidden);
  tape.run([&](const auto& be) {
    feed_forward_forward(be, s, groups, x.value, h, y.value,
                         tape.scratch(feed_forward_scratch_bytes(be, s, groups)));
  });
  tape.record({y}, [&tape, s, x, y, groups, parts, h](const auto& be) {
    for (size_t g = 0; g < parts.size(); ++g) {
      groups[g].dweight1 = tape.grad_sink(parts[g].weight1);
      groups[g].dbias1 = tape.grad_sink(parts[g].bias1);
      groups[g].dweight2 = tape.grad_sink(parts[g].weight2);
      groups[g].dbias2 = tape.grad_sink(parts[g].bias2);
    }
    feed_forward_backward(be, s, groups, x.value, h, tape.grad(y), tape.grad_sink(x),
                          tape.scratch(feed_forward_scratch_bytes(be, s, groups)));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
