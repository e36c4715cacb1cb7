// Exponential moving average of the weights.
#include "kernels/weight_average.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("weight_average: matches the definition", "[kernels][weight_average]") {
  for (const int64_t n : {0, 1, 33, 1000})
    for (const int64_t step : {1, 7, 100000}) {
      const double decay = 0.9;  // reached by step 10
      const double take = std::max(1 - decay, 1 / double(step));
      const Values parameter = uniform(n, -1, 1, 1), before = uniform(n, -1, 1, 2);
      std::vector<double> want;
      for (size_t i = 0; i < parameter.size(); ++i)
        want.push_back((1 - take) * double(before[i]) + take * double(parameter[i]));
      Bits bits;
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Shared<AdamState> state(1);
          state[0].step = step;
          Guarded average(n);
          std::copy(before.begin(), before.end(), average.span().begin());
          weight_average(be, decay, state.data(), parameter, average.span());
          device.wait();
          REQUIRE(average.intact());
          require_close(average.span(), want, 8);
          REQUIRE(state[0].step == step);
          bits.require(device, {average.values()});
        });
    }
}

TEST_CASE("weight_average: decay 0 is the weights themselves", "[kernels][weight_average]") {
  const Values parameter = uniform(65, -1, 1);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Shared<AdamState> state(1);
      state[0].step = 5;
      Values average(parameter.size(), 0);
      weight_average(be, 0, state.data(), parameter, average);
      device.wait();
      REQUIRE(average == parameter);
    });
}

TEST_CASE("weight_average: arguments are checked", "[kernels][weight_average][errors]") {
  Shared<AdamState> state(1);
  state[0].step = 1;
  Values parameter(6), average(6), small(5);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(weight_average(be, 0.9, nullptr, parameter, average),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(weight_average(be, 1, state.data(), parameter, average),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(weight_average(be, -0.1, state.data(), parameter, average),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(weight_average(be, 0.9, state.data(), parameter, small),
                        std::invalid_argument);
    });
  state[0].step = 0;
  REQUIRE_THROWS_AS(weight_average(Cpu{}, 0.9, state.data(), parameter, average),
                    std::invalid_argument);
}
