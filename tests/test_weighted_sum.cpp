// Weighted sum of scalar losses, and the scaled addition of the losses' way back.
#include "autograd/weighted_sum.h"
#include "kernels/scaled_add.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("weighted_sum: value and gradients; weight 0 is not read and its branch does not run",
          "[autograd][weighted_sum]") {
  for (const Device& device : devices()) {
    Tape tape(device);
    Values a{2}, b{real(NAN)}, c{3}, da{1}, dc{0};
    bool reached = false;
    Tensor skipped = tape.make({1}, true);
    skipped.value[0] = b[0];
    tape.record({skipped}, [&](const auto&) { reached = true; });
    const std::vector<Tensor> terms{tape.leaf({1}, a, da), skipped, tape.leaf({1}, c, dc)};
    const std::vector<double> weights{0.5, 0, -2};
    const Tensor sum = weighted_sum(tape, terms, weights);
    REQUIRE(sum.value[0] == -5);
    tape.backward(sum);
    REQUIRE((da[0] == real(1.5) && dc[0] == -2 && !reached));
  }
}

TEST_CASE("weighted_sum: nothing to add, and errors", "[autograd][weighted_sum][errors]") {
  Tape tape;
  const Tensor none = weighted_sum(tape, {}, {});
  REQUIRE((none.value[0] == 0 && !none.requires_grad()));
  Values two(2), one(1);
  const std::vector<Tensor> wide{tape.leaf({2}, two)}, good{tape.leaf({1}, one)};
  const std::vector<double> w{1}, more{1, 1}, many(17, 1.0);
  REQUIRE_THROWS_AS(weighted_sum(tape, wide, w), std::invalid_argument);
  REQUIRE_THROWS_AS(weighted_sum(tape, good, more), std::invalid_argument);
  REQUIRE_THROWS_AS(weighted_sum(tape, std::vector<Tensor>(17, good[0]), many),
                    std::invalid_argument);
}

TEST_CASE("scaled_add: adds, skips an empty target, checks sizes", "[kernels][scaled_add]") {
  for (int64_t n : {0, 1, 7, 33, 200001})
    for (int threads : {1, 2, 5}) {
      const Values x = uniform(n, -1, 1, 1);
      Guarded y(n, 2);
      scaled_add(Cpu{threads}, Values{real(0.5)}, x, y.span());
      REQUIRE(y.intact());
      const Values got = y.values();
      for (size_t i = 0; i < got.size(); ++i)
        if (got[i] != real(2 + double(x[i]) / 2)) REQUIRE(close(got[i], 2 + double(x[i]) / 2, 1));
    }
  Values a(1), x(3), y(2);
  REQUIRE_NOTHROW(scaled_add(Cpu{}, a, x, {}));
  REQUIRE_THROWS_AS(scaled_add(Cpu{}, a, x, y), std::invalid_argument);
  REQUIRE_THROWS_AS(scaled_add(Cpu{}, x, x, x), std::invalid_argument);
}
