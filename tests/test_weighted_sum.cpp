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
    device.upload(b.data(), skipped.value.data(), sizeof(real));
    tape.record({skipped}, [&](const auto&) { reached = true; });
    const std::vector<Tensor> terms{tape.leaf({1}, a, da), skipped, tape.leaf({1}, c, dc)};
    const std::vector<double> weights{0.5, 0, -2};
    const Tensor sum = weighted_sum(tape, terms, weights);
    REQUIRE(device.read(sum.value, 0) == -5);
    tape.backward(sum);
    device.wait();
    REQUIRE((da[0] == real(1.5) && dc[0] == -2 && !reached));
  }
}

TEST_CASE("weighted_sum: sixteen terms, some of them the same", "[kernels][weighted_sum]") {
  Values x = uniform(16, -1, 1);
  const Values dvalue{real(0.5)};
  std::vector<In> terms;
  std::vector<double> weights;
  double want = 0;
  for (size_t i = 0; i < 16; ++i) {
    terms.push_back(In(x).subspan(i, 1));
    weights.push_back(i == 3 ? 0 : double(i) - 4.25);
    want += weights[i] * double(x[i]);
  }
  x[3] = NAN;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded value(1), d(16, 1);
      std::vector<InOut> gradients;
      for (size_t i = 0; i < 16; ++i)  // 5, 10 and 15 are one
        gradients.push_back(i == 1 ? InOut() : d.span().subspan(i % 5 == 0 && i > 5 ? 5 : i, 1));
      weighted_sum_forward(be, terms, weights, value.span());
      weighted_sum_backward(be, weights, dvalue, gradients);
      require_close(value.span(), {want}, 8, 16);
      for (size_t i = 0; i < 16; ++i) {
        const bool none = i == 1 || i == 3 || i == 10 || i == 15;
        const double weight = i == 5 ? weights[5] + weights[10] + weights[15] : weights[i];
        REQUIRE(d.span()[i] == real(none ? 1 : 1 + weight / 2));
      }
      REQUIRE((value.intact() && d.intact()));
    });
}

TEST_CASE("weighted_sum: nothing to add, and errors", "[autograd][weighted_sum][errors]") {
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor none = weighted_sum(tape, {}, {});
    REQUIRE((device.read(none.value, 0) == 0 && !none.requires_grad()));
    Values two(2), one(1);
    const std::vector<Tensor> wide{tape.leaf({2}, two)}, good{tape.leaf({1}, one)};
    const std::vector<double> w{1}, more{1, 1}, many(17, 1.0);
    REQUIRE_THROWS_AS(weighted_sum(tape, wide, w), std::invalid_argument);
    REQUIRE_THROWS_AS(weighted_sum(tape, good, more), std::invalid_argument);
    REQUIRE_THROWS_AS(weighted_sum(tape, std::vector<Tensor>(17, good[0]), many),
                      std::invalid_argument);
    const std::vector<InOut> too_wide{two};
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(weighted_sum_backward(be, w, one, too_wide), std::invalid_argument);
      REQUIRE_THROWS_AS(weighted_sum_backward(be, w, two, {}), std::invalid_argument);
    });
  }
}

TEST_CASE("scaled_add: adds, skips an empty target, checks sizes", "[kernels][scaled_add]") {
  for (int64_t n : {0, 1, 7, 33, 20001})
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        const Values x = uniform(n, -1, 1, 1), half{real(0.5)};
        Guarded y(n, 2);
        scaled_add(be, half, x, y.span());
        REQUIRE(y.intact());
        const Values got = y.values();
        for (size_t i = 0; i < got.size(); ++i)
          if (got[i] != real(2 + double(x[i]) / 2)) REQUIRE(close(got[i], 2 + double(x[i]) / 2, 1));
      });
  Values a(1), x(3), y(2);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_NOTHROW(scaled_add(be, a, x, {}));
      REQUIRE_THROWS_AS(scaled_add(be, a, x, y), std::invalid_argument);
      REQUIRE_THROWS_AS(scaled_add(be, x, x, x), std::invalid_argument);
    });
}
