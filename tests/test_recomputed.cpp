// An op that runs its ops again on the way back.
#include "autograd/dropout.h"
#include "autograd/gelu.h"
#include "autograd/recomputed.h"
#include "support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

struct Run {
  Values y, dx, dw;
};

/// Two layers of gelu(drop(x) * w) by an op of ops, plainly or recomputed.
Run run(bool again, const RandomState& random) {
  Values x = uniform(60, -2, 2), w = uniform(60, -1, 1, 3);
  Run result{{}, Values(60, 0), Values(60, 0)};
  const auto layer = [&](Tape& tape, const Tensor& in, uint32_t op) {
    const Tensor weight = tape.leaf({60}, w, result.dw);
    const Tensor dropped = dropout(tape, in, Dropout{0.25, &random, op});
    Tensor product = tape.make({60}, true);
    for (size_t i = 0; i < 60; ++i) product.value[i] = dropped.value[i] * w[i];
    tape.record({product}, [&tape, dropped, weight, product](const auto&) {
      const InOut d = tape.grad_sink(dropped), dweight = tape.grad_sink(weight);
      for (size_t i = 0; i < 60; ++i) {
        d[i] += tape.grad(product)[i] * weight.value[i];
        dweight[i] += tape.grad(product)[i] * dropped.value[i];
      }
    });
    return gelu(tape, product);
  };
  Tape tape;
  Tensor y = tape.leaf({60}, x, result.dx);
  for (uint32_t op = 0; op < 2; ++op) {
    if (again)
      y = recomputed(tape, y, [&, op](Tape& t, const Tensor& in) { return layer(t, in, op); });
    else
      y = layer(tape, y, op);
  }
  result.y.assign(y.value.begin(), y.value.end());
  const Values dy = uniform(60, -1, 1, 5);
  tape.backward(y, In(dy));
  return result;
}

}  // namespace

TEST_CASE("recomputed: values and gradients have the bits of the plain ops",
          "[autograd][recomputed]") {
  const RandomState random{3, 1};
  const Run plain = run(false, random), again = run(true, random);
  CHECK(again.y == plain.y);
  CHECK(again.dx == plain.dx);
  CHECK(again.dw == plain.dw);
  CHECK(plain.dw != Values(60, 0));
}
