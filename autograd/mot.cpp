#include "autograd/mot.h"

#include "kernels/check/mot.h"

namespace decalign::inline DECALIGN_REAL {

GraphTransport mot(Tape& tape, const Tensor& cost, const Tensor& marginals, CostGraph graph,
                   const MotOptions& options, bool pairs, std::span<const MotEdge> edges) {
  expect(marginals.shape.size() == 3, "mot: marginals must be [B, M, K]");
  const int64_t B = marginals.shape[0], M = marginals.shape[1], K = marginals.shape[2];
  const MotShape shape{B, M, K, graph, tape.keep(edges), options};
  check_mot_shape(shape);
  expect(cost.shape == Shape{B, shape.pairs(), K, K}, "mot: cost must be [B, pairs, K, K]");
  const bool grad = any_grad(cost, marginals);
  GraphTransport result{tape.make({B}, grad), {}, tape.take<real>(4 * B)};
  if (pairs) result.pairs = tape.make(cost.shape, grad);
  const auto state = tape.take<double>(mot_state_size(shape));
  tape.run([&](const auto& be) {
    mot_forward(be, shape, cost.value, marginals.value, state, result.value.value,
                result.pairs.value, result.report, tape.scratch(mot_scratch_bytes(be, shape)));
  });
  tape.record({result.value, result.pairs},
              [&tape, shape, cost, marginals, state, result](const auto& be) {
                const Scratch scratch = tape.scratch(mot_scratch_bytes(be, shape));
                mot_backward(be, shape, cost.value, marginals.value, state, result.report,
                             tape.grad(result.value), tape.grad(result.pairs), tape.grad_sink(cost),
                             tape.grad_sink(marginals), {}, scratch);
              });
  return result;
}

}  // namespace decalign::inline DECALIGN_REAL
