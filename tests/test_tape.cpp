// The tape and its memory.
#include "autograd/tape.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

// y = factor * x, by hand.
Tensor scaled(Tape& tape, const Tensor& x, real factor) {
  Tensor y = tape.make(x.shape, x.requires_grad());
  for (int64_t i = 0; i < x.size(); ++i) y.value[size_t(i)] = factor * x.value[size_t(i)];
  tape.record({y}, [&tape, x, y, factor](const auto&) {
    const In dy = tape.grad(y);
    const InOut dx = tape.grad_sink(x);
    for (size_t i = 0; i < dx.size(); ++i) dx[i] += factor * dy[i];
  });
  return y;
}

}  // namespace

TEST_CASE("tape: gradients of a reused tensor add up", "[autograd][tape]") {
  Values x{2}, dx{0};
  Tape tape;
  const Tensor leaf = tape.leaf({1}, x, dx);
  Tensor sum = tape.make({1}, true);
  const Tensor a = scaled(tape, leaf, 3), b = scaled(tape, leaf, 5);
  sum.value[0] = a.value[0] + b.value[0];
  tape.record({sum}, [&](const auto&) {
    tape.grad_sink(a)[0] += tape.grad(sum)[0];
    tape.grad_sink(b)[0] += tape.grad(sum)[0];
  });
  tape.backward(sum);
  REQUIRE(sum.value[0] == 16);
  REQUIRE(dx[0] == 8);
}

TEST_CASE("tape: every step gets the same addresses and clean gradients", "[autograd][tape]") {
  Values x(1000, 1), dx(1000, 0);
  Tape tape;
  const real* address = nullptr;
  for (int step = 0; step < 4; ++step) {
    tape.reset();
    std::fill(dx.begin(), dx.end(), real(0));
    Tensor t = tape.leaf({1000}, x, dx);
    for (int i = 0; i < 400; ++i) t = scaled(tape, t, 1);
    Tensor sum = tape.make({1}, true);
    tape.record({sum}, [&](const auto&) {
      for (real& g : tape.grad_sink(t)) g += tape.grad(sum)[0];
    });
    tape.backward(sum);
    for (real g : dx) REQUIRE(g == 1);
    if (step >= 2) REQUIRE(t.value.data() == address);
    address = t.value.data();
  }
}

TEST_CASE("tape: an op whose result nobody used is skipped", "[autograd][tape]") {
  Values x{1}, dx{0};
  Tape tape;
  const Tensor leaf = tape.leaf({1}, x, dx);
  const Tensor used = scaled(tape, leaf, 2);
  (void)scaled(tape, leaf, 100);
  tape.backward(used);
  REQUIRE(dx[0] == 2);
}

TEST_CASE("tape: evaluation remembers nothing and backward needs a scalar",
          "[autograd][tape][errors]") {
  Values x{1, 2}, dx{0, 0};
  Tape evaluation(Device{}, false);
  REQUIRE_FALSE(scaled(evaluation, evaluation.leaf({2}, x, dx), 2).requires_grad());
  Tape tape;
  REQUIRE_THROWS_AS(tape.backward(tape.leaf({2}, x, dx)), std::invalid_argument);
  REQUIRE_THROWS_AS(tape.leaf({3}, x), std::invalid_argument);
}

TEST_CASE("close: rejects NaN", "[support]") { REQUIRE_FALSE(close(NAN, 1, 1e9)); }
