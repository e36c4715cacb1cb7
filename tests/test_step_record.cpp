// The log and the counters of recorded steps.
#include "kernels/step_record.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("step_record: logs a row a step and counts", "[kernels][step_record]") {
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Shared<StepState> state(1);
      state[0].random = {9, 100};
      state[0].first = 5;
      Values loss{1}, other{2};
      Guarded log(2 * 3);
      for (int step = 0; step < 3; ++step) {  // one more than the log holds
        loss[0] = real(step + 1);
        const std::vector<In> terms{loss, {}, other};
        step_record(be, terms, 32, state.data(), log.span());
        device.wait();
      }
      REQUIRE(log.intact());
      REQUIRE(log.values() == Values{1, 0, 2, 2, 0, 2});
      REQUIRE(state[0].random.seed == 9);
      REQUIRE(state[0].random.step == 103);
      REQUIRE(state[0].first == 5 + 3 * 32);
      REQUIRE(state[0].slot == 3);
    });
}

TEST_CASE("step_record: rejects what does not fit", "[kernels][step_record][errors]") {
  Shared<StepState> state(1);
  Values log(6), one(1), two(2);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const std::vector<In> good{one, one, one}, wide{one, two, one}, many(17, In(one));
      REQUIRE_THROWS_AS(step_record(be, good, 1, nullptr, log), std::invalid_argument);
      REQUIRE_THROWS_AS(step_record(be, wide, 1, state.data(), log), std::invalid_argument);
      REQUIRE_THROWS_AS(step_record(be, many, 1, state.data(), log), std::invalid_argument);
      REQUIRE_THROWS_AS(step_record(be, {}, 1, state.data(), log), std::invalid_argument);
      REQUIRE_THROWS_AS(step_record(be, good, 1, state.data(), Out(log).first(4)),
                        std::invalid_argument);
    });
}
