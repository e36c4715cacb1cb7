// Tests of the generated data set: the same everywhere, lengths, labels, noise floor.
#include <catch2/catch.hpp>
#include <cmath>

#include "data/generated.h"

namespace {

using namespace decalign;

TEST_CASE("data: the generated data set is the same on every machine", "[data][generated]") {
  const Dataset data = generate_dataset();
  const Split& train = data.splits.at("train");
  // Values written down once: a change of the generator changes every documented result.
  CHECK(train.labels[0] == Approx(1.47741961).epsilon(1e-5));
  CHECK(train.modalities[0].values[0] == Approx(1.1883322).epsilon(1e-5));
  CHECK(data.splits.at("test").modalities[2].values[40] == Approx(0.419256151).epsilon(1e-5));
  CHECK(*data.noise_floor_mae == Approx(0.297968523).epsilon(1e-6));
  const Dataset again = generate_dataset();
  CHECK(again.splits.at("test").modalities[1].values ==
        data.splits.at("test").modalities[1].values);
  GeneratedOptions other;
  other.seed = 2;
  CHECK(generate_dataset(other).splits.at("train").labels[0] != train.labels[0]);
}

TEST_CASE("data: generated sequences have their own lengths and zero padding",
          "[data][generated]") {
  const Dataset data = generate_dataset();
  for (const auto& [name, split] : data.splits) {
    for (const Sequences& s : split.modalities) {
      REQUIRE(int64_t(s.lengths.size()) == s.count);
      int32_t shortest = s.lengths[0];
      int32_t longest = s.lengths[0];
      size_t wrong = 0;
      for (int64_t n = 0; n < s.count; ++n) {
        const int32_t length = s.lengths[size_t(n)];
        shortest = std::min(shortest, length);
        longest = std::max(longest, length);
        const auto sample = s.sample(n);
        for (size_t i = 0; i < sample.size(); ++i) {
          wrong += (i < size_t(length * s.width)) == (sample[i] == 0.0f);
        }
      }
      CHECK(wrong == 0);
      CHECK(shortest == (s.steps + 1) / 2);
      CHECK(longest == s.steps);
    }
  }
}

TEST_CASE("data: generated labels lie in [-3, 3] around the noise floor", "[data][generated]") {
  const Dataset data = generate_dataset();
  double mean = 0.0;
  const auto& labels = data.splits.at("train").labels;
  for (const float label : labels) {
    CHECK(std::abs(label) <= 3.0f);
    mean += label / double(labels.size());
  }
  CHECK(std::abs(mean) < 0.1);
  // E|noise| of a normal of sigma 0.4 cut at 1 is 0.304.
  CHECK(*data.noise_floor_mae == Approx(0.304).margin(0.02));
  GeneratedOptions clean;
  clean.label_noise = 0.0;
  CHECK(*generate_dataset(clean).noise_floor_mae < 1e-7);
}

TEST_CASE("data: a sample does not depend on the number of samples", "[data][generated]") {
  GeneratedOptions few;
  few.train = 3;
  const Split a = generate_dataset(few).splits.at("train");
  const Split b = generate_dataset().splits.at("train");
  CHECK(a.labels[2] == b.labels[2]);
  CHECK(a.modalities[1].lengths[2] == b.modalities[1].lengths[2]);
  CHECK(a.modalities[1].sample(2)[5] == b.modalities[1].sample(2)[5]);
}

TEST_CASE("data: two or five modalities can be generated", "[data][generated]") {
  GeneratedOptions options;
  options.modalities = {{"thermal", 6, 3}, {"text", 5, 2}};
  CHECK(generate_dataset(options).splits.at("test").modalities[0].name == "text");
  options.modalities = {{"a", 2, 1}, {"b", 3, 1}, {"c", 4, 1}, {"d", 5, 1}, {"text", 6, 2}};
  const Split split = generate_dataset(options).splits.at("test");
  REQUIRE(split.modalities.size() == 5);
  CHECK(split.modalities[0].name == "text");
  CHECK(split.modalities[4].steps == 5);
}

TEST_CASE("data: generator options outside their range are refused", "[data][generated]") {
  const auto refused = [](auto change) {
    GeneratedOptions options;
    change(options);
    CHECK_THROWS_AS(generate_dataset(options), input_error);
  };
  refused([](auto& o) { o.modalities.resize(1); });
  refused([](auto& o) { o.train = 0; });
  refused([](auto& o) { o.label_noise = 2.0; });
  refused([](auto& o) { o.feature_noise = NAN; });
  refused([](auto& o) { o.modalities[0].steps = 1; });
  refused([](auto& o) { o.modalities[0].name = "audio"; });
}

}  // namespace
