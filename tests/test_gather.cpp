// Batches from a data set in the backend's memory: definition, order, errors.
#include "kernels/gather.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("gather: takes the samples that the order names", "[kernels][gather]") {
  const int64_t samples = 9;
  const Shared<float> labels{0, 1, 2, 3, 4, 5, 6, -2, -3};
  const Shared<int64_t> order{8, 3, 7, 0, 42, 5};  // 42 is no sample
  for (const Device& device : devices())
    for (const int64_t elements : {1, 7, 300})
      for (const int64_t start : {0, 2, 5})
        device.run([&](const auto& be) {
          const int64_t count = 4;
          Shared<float> x(size_t(samples * elements));
          for (size_t i = 0; i < x.size(); ++i) x[i] = float(i) / 8;
          const Shared<int64_t> first{start};
          Guarded features(count * elements), targets(count);
          Shared<int32_t> classes(size_t(count), 77);
          const std::vector<GatherPart> parts{{x, elements, features.span(), {}},
                                              {labels, 1, targets.span(), {}},
                                              {labels, 1, {}, classes}};
          gather(be, parts, order, first.data(), count);
          REQUIRE((features.intact() && targets.intact()));
          const Values got = features.values(), got_labels = targets.values();
          for (int64_t i = 0; i < count; ++i) {
            const int64_t at = start + i;
            const int64_t n = at < std::ssize(order) ? order[size_t(at)] : -1;
            const bool there = n >= 0 && n < samples;
            REQUIRE(got_labels[size_t(i)] == (there ? labels[size_t(n)] : 0));
            REQUIRE(classes[size_t(i)] == (there ? int32_t(labels[size_t(n)]) : 0));
            for (int64_t e = 0; e < elements; ++e)
              REQUIRE(got[size_t(i * elements + e)] == (there ? x[size_t(n * elements + e)] : 0));
          }
        });
}

TEST_CASE("gather: rejects what does not fit", "[kernels][gather][errors]") {
  const Shared<float> x(12);
  const Shared<int64_t> order{0, 1, 2}, first{0};
  Values target(6);
  Shared<int32_t> whole(6);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const auto run = [&](GatherPart p, const int64_t* at, int64_t count) {
        gather(be, {&p, 1}, order, at, count);
        device.wait();
      };
      REQUIRE_NOTHROW(run({x, 3, target, {}}, first.data(), 2));
      REQUIRE_NOTHROW(run({x, 3, Out(target).first(0), {}}, first.data(), 0));
      REQUIRE_THROWS_AS(run({x, 5, target, {}}, first.data(), 2), std::invalid_argument);
      REQUIRE_THROWS_AS(run({x, 3, target, {}}, first.data(), 3), std::invalid_argument);
      REQUIRE_THROWS_AS(run({x, 3, target, whole}, first.data(), 4), std::invalid_argument);
      REQUIRE_THROWS_AS(run({x, 3, target, {}}, nullptr, 2), std::invalid_argument);
    });
}
