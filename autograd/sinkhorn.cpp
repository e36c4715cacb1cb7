#include "autograd/sinkhorn.h"

namespace decalign::inline DECALIGN_REAL {

Transport sinkhorn(Tape& tape, const Tensor& cost, const Tensor& marginals,
                   const SinkhornOptions& options) {
  expect(marginals.shape.size() == 2, "sinkhorn: marginals must be [M, K]");
  const int64_t M = marginals.shape[0], K = marginals.shape[1];
  expect(cost.shape == Shape{M * (M - 1) / 2, K, K}, "sinkhorn: cost must be [pairs, K, K]");
  expect(options.max_sweeps >= 0, "sinkhorn: option out of range");
  const SinkhornShape shape{M, K, options};
  const Transport result{tape.make({1}, any_grad(cost, marginals)), tape.take<real>(3)};
  const auto scalings = tape.take<double>(options.max_sweeps * M * K);
  tape.run([&](const auto& be) {
    const auto scratch = tape.take<std::byte>(int64_t(sinkhorn_scratch_bytes(be, shape)));
    sinkhorn_forward(be, shape, cost.value, marginals.value, scalings, result.value.value,
                     result.report, scratch);
  });
  tape.record({result.value}, [&tape, shape, cost, marginals, scalings, result](const auto& be) {
    const auto scratch = tape.take<std::byte>(int64_t(sinkhorn_scratch_bytes(be, shape)));
    sinkhorn_backward(be, shape, cost.value, marginals.value, scalings, result.report,
                      tape.grad(result.value), tape.grad_sink(cost), tape.grad_sink(marginals),
                      scratch);
  });
  return result;
}

}  // namespace decalign::inline DECALIGN_REAL
