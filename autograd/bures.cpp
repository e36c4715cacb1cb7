#include "autograd/bures.h"

namespace decalign::inline DECALIGN_REAL {

Tensor bures(Tape& tape, const Tensor& means, const Tensor& spread, const BuresOptions& options) {
  const bool diagonal = options.spread == Spread::variances;
  expect(means.shape.size() == 3, "bures: means must be [M, K, d]");
  expect(spread.shape.size() == (diagonal ? 3 : 4),
         "bures: spread must be [M, K, d, rank] or, for variances, [M, K, d]");
  const int64_t M = means.shape[0], K = means.shape[1];
  const BuresShape shape{M, K, means.shape[2], diagonal ? 1 : spread.shape[3], options};
  const bool wanted = any_grad(means, spread);
  const Tensor cost = tape.make(
      options.pairing == Pairing::all ? Shape{M * (M - 1) / 2, K, K} : Shape{M * (M - 1) / 2, K},
      wanted);
  const auto kept = tape.take<real>(spread.requires_grad() ? shape.kept_size() : 0);
  tape.run([&](const auto& be) {
    bures_forward(be, shape, means.value, spread.value, cost.value, kept,
                  tape.scratch(bures_scratch_bytes(be, shape)));
  });
  tape.record({cost}, [&tape, shape, means, spread, cost, kept](const auto& be) {
    const Scratch scratch = tape.scratch(bures_scratch_bytes(be, shape));
    bures_backward(be, shape, means.value, spread.value, kept, tape.grad(cost),
                   tape.grad_sink(means), tape.grad_sink(spread), scratch);
  });
  return cost;
}

}  // namespace decalign::inline DECALIGN_REAL
