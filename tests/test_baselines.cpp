// Mean predictor and ridge regression against their definitions.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "model/baselines.h"
#include "model/metrics.h"

using namespace decalign;

namespace {

Sequences sequences(std::string name, int64_t count, int64_t steps, int64_t width,
                    std::vector<float> values, std::vector<int32_t> lengths = {}) {
  return {std::move(name), count, steps, width, std::move(values), std::move(lengths), 0};
}

// One step of normal features; label = 2 x_0 - x_1 + 3 + noise.
Split linear(int64_t count, int64_t width, float noise, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Split split;
  std::vector<float> x;
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t j = 0; j < width; ++j) x.push_back(normal(random));
    const float* row = x.data() + n * width;
    split.labels.push_back(2 * row[0] - row[1] + 3 + noise * normal(random));
    split.ids.push_back(std::to_string(n));
  }
  split.modalities.push_back(sequences("text", count, 1, width, std::move(x)));
  return split;
}

// Labels become classes 0, 1, 2 by size.
Split classified(Split split) {
  for (float& y : split.labels) y = y < 2 ? 0.f : y < 4 ? 1.f : 2.f;
  return split;
}

double error(const Ridge& ridge, const Split& split) {
  return mean_absolute_error(predict_ridge(ridge, split), split.labels);
}

// The gradient of the penalised sum of squares with respect to weights and intercept, relative to
// the size of its terms, from the definition: standardised features, lambda N.
double stationarity(const Ridge& ridge, const Split& train) {
  const int64_t count = train.count(), width = ridge.width;
  const std::vector<double> x = pooled_features(train, 0, count);
  double worst = 0;
  std::vector<double> residual;
  for (int64_t n = 0; n < count; ++n) {
    double r = train.labels[size_t(n)] - ridge.intercept[0];
    for (int64_t j = 0; j < width; ++j) r -= x[size_t(n * width + j)] * ridge.weights[size_t(j)];
    residual.push_back(r);
  }
  double sum = 0;
  for (const double r : residual) sum += r;
  worst = std::abs(sum) / double(count);
  for (int64_t j = 0; j < width; ++j) {
    double mean = 0, square = 0, product = 0;
    for (int64_t n = 0; n < count; ++n) mean += x[size_t(n * width + j)] / double(count);
    for (int64_t n = 0; n < count; ++n) {
      const double z = x[size_t(n * width + j)] - mean;
      square += z * z / double(count);
      product += z * residual[size_t(n)];
    }
    // d/dw of the loss with w = weights * deviation: -sum z/s r + lambda N w = 0.
    const double deviation = std::sqrt(square);
    const double gradient =
        -product / deviation + ridge.lambda * double(count) * ridge.weights[size_t(j)] * deviation;
    worst = std::max(worst, std::abs(gradient) / double(count));
  }
  return worst;
}

}  // namespace

TEST_CASE("baselines: pooling is the mean of the steps that exist", "[model][baselines]") {
  Split split;
  split.modalities = {
      sequences("text", 3, 2, 2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9}, {2, 1, 0}),
      sequences("audio", 3, 3, 1, {0, 2, 4, 0, 0, 0, -1, 0, 2}),
      sequences("empty", 3, 4, 0, {}),
      sequences("vision", 3, 2, 2, {0, 1, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0}),
  };
  REQUIRE(pooled_width(split) == 5);
  CHECK(pooled_features(split, 0, 3) ==
        std::vector<double>{2, 3, 3, 0, 1, 5, 6, 0, 1, 1, 0, 0, .5, 0, 0});
  CHECK(pooled_features(split, 1, 1) == std::vector<double>{5, 6, 0, 1, 1});
  // A step of zeros within the length is one of the steps.
  split.modalities = {sequences("audio", 1, 4, 1, {6, 0, 0, 5}, {3})};
  CHECK(pooled_features(split, 0, 1) == std::vector<double>{2});
}

TEST_CASE("baselines: the mean predictor is the mean or the class shares", "[model][baselines]") {
  Split train;
  train.modalities = {sequences("text", 4, 1, 0, {})};
  train.labels = {1, 2, 2, 0};
  CHECK(predict_mean(train, 2, 0) == std::vector<float>{1.25f, 1.25f});
  CHECK(predict_mean(train, 1, 4) == std::vector<float>{.25f, .25f, .5f, 0});
}

TEST_CASE("baselines: ridge solves its definition, primal and dual", "[model][baselines]") {
  const auto [count, width] =
      GENERATE(std::pair<int64_t, int64_t>{300, 7}, std::pair<int64_t, int64_t>{40, 40},
               std::pair<int64_t, int64_t>{20, 65}, std::pair<int64_t, int64_t>{2, 3});
  Split train = linear(count, width, .5f, 1);
  for (size_t i = 0; i < train.modalities[0].values.size(); i += size_t(width))
    train.modalities[0].values[i] = train.modalities[0].values[i] * 100 + 1000;
  const Ridge fixed = fit_ridge(train, Split{}, 0);
  CHECK(fixed.lambda == 1);
  CHECK(stationarity(fixed, train) <= 1e-11);
  const Ridge chosen = fit_ridge(train, train, 0);  // validation = training: the weakest penalty
  CHECK(chosen.lambda == Approx(1e-4));
  CHECK(stationarity(chosen, train) <= 1e-11);
}

TEST_CASE("baselines: equal columns get equal weights", "[model][baselines]") {
  const Split narrow = linear(30, 16, .5f, 3);
  Split wide = narrow;
  wide.modalities.push_back(wide.modalities[0]);
  const Ridge one = fit_ridge(wide, Split{}, 0);
  for (int64_t j = 0; j < 16; ++j)
    CHECK(one.weights[size_t(j)] == Approx(one.weights[size_t(16 + j)]).epsilon(1e-12));
  CHECK(stationarity(one, wide) <= 1e-12);
}

TEST_CASE("baselines: ridge finds a linear rule and the noise decides lambda",
          "[model][baselines]") {
  const Split clean = linear(600, 10, 0, 4), clean_valid = linear(200, 10, 0, 5);
  const Ridge exact = fit_ridge(clean, clean_valid, 0);
  CHECK(exact.lambda == Approx(1e-4));
  CHECK(error(exact, linear(300, 10, 0, 6)) < 1e-3);
  CHECK(exact.weights[0] == Approx(2).epsilon(1e-3));
  CHECK(exact.intercept[0] == Approx(3).epsilon(1e-3));

  const Split noisy = linear(60, 100, 3, 7), valid = linear(300, 100, 3, 8);
  const Ridge chosen = fit_ridge(noisy, valid, 0);
  CHECK(chosen.lambda > 1e-2);
  CHECK(chosen.valid_score == error(chosen, valid));
  CHECK(chosen.valid_score < mean_absolute_error(predict_mean(noisy, 300, 0), valid.labels));
}

TEST_CASE("baselines: ridge classifies better than the class shares", "[model][baselines]") {
  const Split train = classified(linear(600, 8, .3f, 9));
  const Split valid = classified(linear(300, 8, .3f, 10)),
              test = classified(linear(300, 8, .3f, 11));
  const Ridge ridge = fit_ridge(train, valid, 3);
  const auto f1 = [](const std::vector<float>& scores, const Split& split) {
    return weighted_f1(confusion_matrix(scores, split.labels, 3));
  };
  CHECK(ridge.valid_score == f1(predict_ridge(ridge, valid), valid));
  CHECK(f1(predict_ridge(ridge, test), test) > f1(predict_mean(train, 300, 3), test) + .2);
  // Targets of a sample sum to 1, so scores do.
  const std::vector<float> scores = predict_ridge(ridge, test);
  for (size_t n = 0; n < 300; ++n)
    CHECK(scores[3 * n] + scores[3 * n + 1] + scores[3 * n + 2] == Approx(1).epsilon(1e-5));
}

TEST_CASE("baselines: degenerate splits give the mean", "[model][baselines]") {
  const auto is_mean = [](const Split& train, const Split& valid) {
    const Ridge ridge = fit_ridge(train, valid, 0);
    for (const float y : predict_ridge(ridge, train))
      CHECK(y == Approx(predict_mean(train, 1, 0)[0]).epsilon(1e-6));
  };
  is_mean(linear(1, 5, 1, 12), linear(3, 5, 1, 13));  // one sample
  is_mean(linear(1, 2, 1, 12), Split{});
  Split constant = linear(9, 4, 1, 14);
  for (float& x : constant.modalities[0].values) x = .1f;
  is_mean(constant, constant);
  Split zero_width = constant;
  zero_width.modalities = {sequences("text", 9, 3, 0, {})};
  is_mean(zero_width, zero_width);
  Split no_steps = constant;
  no_steps.modalities = {sequences("text", 9, 0, 4, {})};
  is_mean(no_steps, no_steps);
}

TEST_CASE("baselines: a constant column changes nothing", "[model][baselines]") {
  const Split train = linear(50, 3, 1, 15);
  const Ridge without = fit_ridge(train, train, 0);
  std::vector<float> thirds;  // pooled: 1/3, whose mean over the samples is not exactly 1/3
  for (int n = 0; n < 50; ++n) thirds.insert(thirds.end(), {1, 0, 0});
  Split padded = train;
  padded.modalities.push_back(sequences("audio", 50, 3, 1, thirds, std::vector<int32_t>(50, 3)));
  padded.modalities.push_back(sequences("vision", 50, 1, 1, std::vector<float>(50, 1e6f / 3)));
  const Ridge with = fit_ridge(padded, padded, 0);
  CHECK(with.weights[3] == 0);
  CHECK(with.weights[4] == 0);
  CHECK(error(with, padded) == Approx(error(without, train)).epsilon(1e-7));
}

TEST_CASE("baselines: bad input is refused", "[model][baselines][errors]") {
  const Split good = linear(5, 2, 1, 16);
  Split bad = good;
  bad.labels[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(fit_ridge(bad, good, 0), input_error);
  CHECK_THROWS_AS(fit_ridge(good, bad, 0), input_error);
  CHECK_THROWS_WITH(predict_mean(bad, 1, 0), Catch::Contains("sample 3 of the train split"));
  CHECK_THROWS_AS(fit_ridge(good, good, 2), input_error);  // labels are no classes
  CHECK_THROWS_AS(fit_ridge(Split{}, good, 0), input_error);
  CHECK_THROWS_AS(predict_mean(Split{}, 1, 0), input_error);
  bad.labels.pop_back();
  CHECK_THROWS_AS(fit_ridge(bad, good, 0), input_error);
  CHECK_THROWS_AS(fit_ridge(good, linear(5, 3, 1, 17), 0), std::invalid_argument);
  CHECK_THROWS_AS(predict_ridge(fit_ridge(good, good, 0), linear(5, 3, 1, 17)),
                  std::invalid_argument);
  CHECK_THROWS_AS(fit_ridge(good, good, 1), std::invalid_argument);
}
