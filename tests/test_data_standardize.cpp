// Tests of standardisation against definitions written out in double.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "data/standardize.h"

namespace {

using namespace decalign;

Sequences random_sequences(int64_t count, int64_t steps, int64_t width, unsigned seed) {
  std::mt19937 random(seed);
  Sequences s;
  s.name = "audio";
  s.count = count;
  s.steps = steps;
  s.width = width;
  for (int64_t i = 0; i < count * steps * width; ++i) {
    const double x = double(random()) / 4294967296.0 - 0.5;
    s.values.push_back(i % 7 == 0 ? 0.0f : float(std::tan(3.0 * x) * double(i % width + 1)));
  }
  return s;
}

std::vector<float> column_of(const Sequences& s, int64_t j) {
  std::vector<float> column;
  for (size_t i = size_t(j); i < s.values.size(); i += size_t(s.width)) {
    column.push_back(s.values[i]);
  }
  return column;
}

double percentile(std::vector<float> column, double q) {
  std::sort(column.begin(), column.end());
  const double place = q / 100.0 * double(column.size() - 1);
  const auto below = size_t(place);
  const size_t above = std::min(below + 1, column.size() - 1);
  return column[below] + (double(column[above]) - column[below]) * (place - double(below));
}

TEST_CASE("data: percentiles, mean and deviation are those of the definition",
          "[data][standardize]") {
  for (const int64_t width : {1, 3, 4, 9}) {
    for (const int64_t count : {1, 2, 40}) {
      const Sequences s = random_sequences(count, 5, width, unsigned(width + count));
      for (const auto& [low, high] :
           {std::pair(0.5, 99.5), std::pair(0.0, 100.0), std::pair(10.0, 50.0)}) {
        const FeatureStats stats = feature_stats(s, low, high);
        for (int64_t j = 0; j < width; ++j) {
          INFO("width " << width << " count " << count << " column " << j << " low " << low);
          const auto column = column_of(s, j);
          const double a = percentile(column, low);
          const double b = percentile(column, high);
          double mean = 0.0;
          double square = 0.0;
          for (const float x : column) mean += std::clamp(double(x), a, b);
          mean /= double(column.size());
          for (const float x : column) square += std::pow(std::clamp(double(x), a, b) - mean, 2);
          const double std = std::max(std::sqrt(square / double(column.size())), 1e-6);
          const size_t k = size_t(j);
          CHECK(stats.low[k] == Approx(a).epsilon(1e-6).margin(1e-7));
          CHECK(stats.high[k] == Approx(b).epsilon(1e-6).margin(1e-7));
          CHECK(stats.mean[k] == Approx(mean).epsilon(1e-6).margin(1e-6));
          CHECK(stats.std[k] == Approx(std).epsilon(1e-6));
        }
      }
    }
  }
}

TEST_CASE("data: extreme and equal values have their order statistics", "[data][standardize]") {
  Sequences s;
  s.name = "vision";
  s.count = 5;
  s.steps = 1;
  s.width = 2;
  s.values = {-3e38f, 1, 3e38f, 1, -0.0f, 1, 1e-45f, 1, -1e-45f, 1};
  const FeatureStats stats = feature_stats(s, 0.0, 100.0);
  CHECK(stats.low[0] == -3e38f);
  CHECK(stats.high[0] == 3e38f);
  CHECK(feature_stats(s, 25.0, 75.0).low[0] == -1e-45f);
  CHECK(feature_stats(s, 25.0, 75.0).high[0] == 1e-45f);
  CHECK((stats.low[1] == 1 && stats.high[1] == 1 && stats.mean[1] == 1));
  CHECK(stats.std[1] == 1e-6f);
  standardize(s, stats);
  CHECK(s.values[1] == 0.0f);
}

TEST_CASE("data: values are clipped, centred and scaled; what is not finite becomes 0",
          "[data][standardize]") {
  Sequences s;
  s.name = "audio";
  s.count = 1;
  s.steps = 3;
  s.width = 2;
  s.values = {-9, 5, 0.5f, 5, 9, 5};
  const FeatureStats stats{{-1, -1}, {2, 2}, {0.5f, 0}, {2, 0}};
  standardize(s, stats);
  CHECK(s.values == std::vector<float>{-0.75f, 0, 0, 0, 0.75f, 0});
}

TEST_CASE("data: every split is standardised with the training split's statistics",
          "[data][standardize]") {
  Dataset data;
  data.splits["train"].modalities = {random_sequences(30, 2, 3, 1)};
  data.splits["test"].modalities = {random_sequences(9, 4, 3, 2)};
  Dataset again = data;
  Sequences expected = data.splits["test"].modalities[0];
  const auto stats = standardize_dataset(data, {"audio"});
  standardize(expected, stats.at("audio"));
  CHECK(data.splits["test"].modalities[0].values == expected.values);
  standardize_dataset(again, stats);
  CHECK(again.splits["train"].modalities[0].values == data.splits["train"].modalities[0].values);
}

TEST_CASE("data: bad percentiles, widths and names are input errors", "[data][standardize]") {
  Dataset data;
  data.splits["test"].modalities = {random_sequences(2, 2, 3, 1)};
  CHECK_THROWS_AS(standardize_dataset(data, {"audio"}), input_error);
  data.splits["train"] = data.splits["test"];
  CHECK_THROWS_AS(standardize_dataset(data, {"smell"}), input_error);
  const Sequences& s = data.splits["train"].modalities[0];
  for (const auto& [low, high] : {std::pair(-1.0, 50.0), std::pair(50.0, 50.0),
                                  std::pair(0.0, 101.0), std::pair(double(NAN), 50.0)}) {
    CHECK_THROWS_AS(feature_stats(s, low, high), input_error);
  }
  const std::map<std::string, FeatureStats> narrow{{"audio", {{0}, {1}, {0}, {1}}}};
  CHECK_THROWS_AS(standardize_dataset(data, narrow), input_error);
}

TEST_CASE("data: averaging over time leaves one step", "[data][standardize]") {
  Sequences s;
  s.count = 2;
  s.steps = 2;
  s.width = 2;
  s.values = {1, 2, 3, 6, 0, 0, -1, 1};
  s.lengths = {2, 1};
  average_over_time(s);
  CHECK(s.values == std::vector<float>{2, 4, -0.5f, 0.5f});
  CHECK(s.steps == 1);
  CHECK(s.lengths.empty());
}

TEST_CASE("data: merging puts valid behind train and validates on test", "[data][standardize]") {
  Dataset data;
  for (const char* name : {"train", "valid", "test"}) {
    Split& split = data.splits[name];
    split.modalities = {random_sequences(2, 3, 2, unsigned(name[0]))};
    split.labels = {float(name[0]), 1};
    split.ids = {name, "b"};
  }
  data.splits["valid"].modalities[0].lengths = {1, 2};
  const Dataset before = data;
  merge_train_and_valid(data);
  const Sequences& train = data.splits["train"].modalities[0];
  CHECK(train.count == 4);
  CHECK(train.values.size() == 24);
  CHECK(train.values[12] == before.splits.at("valid").modalities[0].values[0]);
  CHECK(train.lengths == std::vector<int32_t>{3, 3, 1, 2});
  CHECK(data.splits["train"].ids == std::vector<std::string>{"train", "b", "valid", "b"});
  CHECK(data.splits["train"].labels == std::vector<float>{'t', 1, 'v', 1});
  CHECK(data.splits["valid"].ids[0] == "test");
  data = before;
  data.splits["valid"].modalities = {random_sequences(2, 4, 2, 5)};
  CHECK_THROWS_AS(merge_train_and_valid(data), input_error);
  data.splits.erase("valid");
  CHECK_THROWS_AS(merge_train_and_valid(data), input_error);
}

}  // namespace
