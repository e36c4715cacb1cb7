// The metrics against scikit-learn, numpy and their definitions.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "model/metrics.h"

using namespace decalign;

namespace {

using Values = std::vector<float>;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

double value(const Metrics& metrics, const char* name) {
  const auto found = find_metric(metrics, name);
  INFO(name);
  REQUIRE(found);
  return *found;
}

void require_values(const Metrics& metrics, const Metrics& expected) {
  REQUIRE(metrics.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    INFO(expected[i].first);
    CHECK(metrics[i].first == expected[i].first);
    CHECK(std::abs(metrics[i].second - expected[i].second) <= 1e-14);
  }
}

const Values kLabels{-3,   -2.6f, -1.5f, -.5f, 0, 0,     .2f,  .5f,
                     1.5f, 2.5f,  3,     -.4f, 1, -1.8f, 2.2f, -3};
const Values kPredictions{-3.4f, -2.4f, -2.5f, .1f,  -.1f, .3f,  -.2f, 1.5f,
                          2.4f,  2.5f,  4.2f,  -.5f, .6f,  -.9f, 2.7f, -2};

}  // namespace

TEST_CASE("metrics: regression agrees with scikit-learn and numpy", "[model][metrics]") {
  // numpy 2.4.6, scikit-learn 1.9.1 (float32 comparisons, float64 sums).
  require_values(regression_metrics(kPredictions, kLabels),
                 {{"Acc_2", 0.8571428571428571},
                  {"F1_score", 0.8571428571428571},
                  {"MAE", 0.5624999860301614},
                  {"Corr", 0.9554740634167089},
                  {"Acc_7", 0.6875},
                  {"Acc_5", 0.875},
                  {"Acc_3", 0.9375},
                  {"Has0_acc_2", 0.8125},
                  {"Has0_F1_score", 0.8132352941176471},
                  {"Non0_acc_2", 0.8571428571428571},
                  {"Non0_F1_score", 0.8571428571428571}});
}

TEST_CASE("metrics: sims agrees with the published code", "[model][metrics]") {
  // numpy 2.4.6, scikit-learn 1.9.1; most samples lie on a split or one step beyond.
  const Values labels{-1, -.8f, -.7f, -.6f, -.1f, 0, .1f, .2f, .7f, .8f, 1, -.3f, .4f};
  const Values predictions{-1.5f, -.7f, -.8f, -.7f, .1f, -.1f, .2f, .1f, .8f, .7f, 1.2f, 0, -.4f};
  require_values(rounded(sims_metrics(predictions, labels)), {{"Mult_acc_2", 0.8462},
                                                              {"Mult_acc_3", 0.5385},
                                                              {"Mult_acc_5", 0.3077},
                                                              {"F1_score", 0.8462},
                                                              {"MAE", 0.1615},
                                                              {"Corr", 0.9157}});
}

TEST_CASE("metrics: sims intervals include their upper end only", "[model][metrics]") {
  // One sample each; the truth 0.2 is class 1 of 2, 2 of 3, 3 of 5.
  const auto hit = [](const char* name, float prediction, float label) {
    return value(sims_metrics(Values{prediction}, Values{label}), name) == 1;
  };
  const auto above = [](float x) { return std::nextafter(x, kInf); };
  CHECK(hit("Mult_acc_2", -0.0f, -1));
  CHECK(hit("Mult_acc_2", 0, -1));
  CHECK(hit("Mult_acc_2", above(0), 1));
  for (const char* name : {"Mult_acc_3", "Mult_acc_5"}) {
    INFO(name);
    CHECK(hit(name, .1f, 0));
    CHECK_FALSE(hit(name, above(.1f), 0));
    CHECK_FALSE(hit(name, -.1f, 0));
    CHECK(hit(name, above(-.1f), 0));
  }
  CHECK(hit("Mult_acc_5", .7f, .2f));
  CHECK_FALSE(hit("Mult_acc_5", above(.7f), .2f));
  CHECK(hit("Mult_acc_5", -.7f, -5));
  CHECK(hit("Mult_acc_5", above(-.7f), -.1f));
  CHECK(hit("Mult_acc_3", -.7f, -.1f));
}

TEST_CASE("metrics: sims clips before MAE and Corr", "[model][metrics]") {
  const Metrics m = sims_metrics(Values{5, -7, 0}, Values{1, -1, .5f});
  CHECK(value(m, "MAE") == Approx(.5 / 3).epsilon(1e-15));
  CHECK(value(m, "Corr") == correlation(Values{1, -1, 0}, Values{1, -1, .5f}));
}

TEST_CASE("metrics: halves round to even, ends are clipped", "[model][metrics]") {
  const auto acc7 = [](float p, float t) {
    return value(regression_metrics(Values{p}, Values{t}), "Acc_7") == 1;
  };
  CHECK(acc7(.5f, 0));
  CHECK(acc7(-.5f, 0));
  CHECK(acc7(-.4f, .4f));  // -0 and 0 are the same grade
  CHECK(acc7(1.5f, 2));
  CHECK(acc7(2.5f, 2));
  CHECK(acc7(-2.5f, -2));
  CHECK_FALSE(acc7(.5f, 1));
  CHECK(acc7(1e30f, 3));
  CHECK(acc7(-9, -2.6f));
}

TEST_CASE("metrics: zero counts as not positive in Non0, as not negative in Has0",
          "[model][metrics]") {
  const auto both = [](float p, float t) {
    const Metrics m = regression_metrics(Values{p}, Values{t});
    return std::pair(value(m, "Non0_acc_2"), value(m, "Has0_acc_2"));
  };
  for (const float zero : {0.f, -0.f}) {
    CHECK(both(zero, -1) == std::pair(1., 0.));
    CHECK(both(zero, 1) == std::pair(0., 1.));
    CHECK(both(1, zero) == std::pair(0., 1.));
    CHECK(both(-1, zero) == std::pair(0., 0.));
  }
}

TEST_CASE("metrics: without a non-zero label the Non0 metrics are 0", "[model][metrics]") {
  const Metrics m = regression_metrics(Values{1, -1}, Values{0, -0.0f});
  for (const char* name : {"Acc_2", "F1_score", "Non0_acc_2", "Non0_F1_score", "Corr"})
    CHECK(value(m, name) == 0);
  CHECK(value(m, "Has0_acc_2") == .5);
  CHECK(value(m, "MAE") == 1);
}

TEST_CASE("metrics: Corr is 0 where undefined and exact on lines", "[model][metrics]") {
  CHECK(correlation(Values{}, Values{}) == 0);
  CHECK(correlation(Values{1}, Values{2}) == 0);
  CHECK(correlation(Values(7, .1f), Values{1, 2, 3, 4, 5, 6, 7}) == 0);
  CHECK(correlation(Values(4659, -.3f), std::vector<float>(4659, .7f)) == 0);
  CHECK(correlation(Values{1, 2, 3}, Values(3, -2)) == 0);
  CHECK(correlation(Values{1, 2, 4}, Values{-10, -20, -40}) == Approx(-1).epsilon(1e-15));
  CHECK(correlation(Values{1, 2, 4}, Values{2, 4, 8}) <= 1);
}

TEST_CASE("metrics: Corr survives a large offset and extreme scales", "[model][metrics]") {
  const Values x{0, 1, 2, 3}, y{1, 0, 3, 2};  // 0.6 by hand
  for (const float offset : {0.f, 4096.f, 8388608.f}) {
    Values shifted = x;
    for (float& v : shifted) v += offset;
    CHECK(correlation(shifted, y) == Approx(.6).epsilon(1e-14));
  }
  for (const float scale : {1e-38f, 1e37f}) {
    Values scaled = x;
    for (float& v : scaled) v *= scale;
    CHECK(correlation(scaled, y) == Approx(.6).epsilon(1e-6));
  }
}

TEST_CASE("metrics: classification agrees with scikit-learn", "[model][metrics]") {
  // scikit-learn 1.9.1; the second row is a tie that goes to the first class.
  const Values scores{3, 1, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 1, 0, 0, 5, -1, -2, -3, -1, -4, -5,
                      0, 0, 4, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0,  9,  0,  0,  0,  0};
  const Values labels{0, 1, 2, 0, 2, 5, 3, 2};
  require_values(classification_metrics(scores, labels, 6), {{"WAcc", 0.625},
                                                             {"WAF1", 0.5958333333333333},
                                                             {"Acc", 0.625},
                                                             {"F1_score", 0.5958333333333333},
                                                             {"Macro_F1", 0.5933333333333334}});
  const Confusion confusion = confusion_matrix(scores, labels, 6);
  CHECK(confusion.total() == 8);
  CHECK(confusion.at(2, 5) == 1);
  CHECK(confusion.at(5, 0) == 1);
  CHECK(confusion.truths(2) == 3);
  CHECK(confusion.predictions(0) == 3);
  CHECK(f1_score(confusion, 4) == 0);
}

TEST_CASE("metrics: macro F1 leaves out classes that never occur", "[model][metrics]") {
  const Metrics m = classification_metrics(Values{1, 0, 0, 1, 0, 0}, Values{0, 0}, 3);
  CHECK(value(m, "Macro_F1") == 1);
  CHECK(value(m, "WAF1") == 1);
}

TEST_CASE("metrics: rounding is the published code's", "[model][metrics]") {
  // 1/160 = 62.5e-4: numpy's round gives .0062, Python's .0063, as the double lies above the tie.
  const Metrics m = rounded({{"Acc_7", 1. / 160}, {"Acc_2", 1. / 160}, {"MAE", 2.00005}});
  CHECK(value(m, "Acc_7") == .0062);
  CHECK(value(m, "Acc_2") == .0063);
  CHECK(value(m, "MAE") == 2.0);                                 // numpy 2.4.6: 20000.5 to even
  CHECK(value(rounded({{"Acc_2", .03125}}), "Acc_2") == .0312);  // a tie in binary, too
  CHECK(value(rounded({{"F1_score", -.1}}), "F1_score") == -.1);
}

TEST_CASE("metrics: the protocol follows the data set and the mode", "[model][metrics]") {
  CHECK(evaluate("SIMS", 0, Values{1}, Values{1}).front().first == "Mult_acc_2");
  CHECK(evaluate("mosei", 0, Values{1}, Values{1}).front().first == "Acc_2");
  CHECK(evaluate("iemocap", 0, Values{1}, Values{1}).front().first == "Acc_2");
  CHECK(evaluate("anything", 2, Values{1, 0}, Values{1}).front().first == "WAcc");
}

TEST_CASE("metrics: F1Acc_score is a mixture", "[model][metrics]") {
  const Metrics m{{"Acc_2", .5}, {"F1_score", .8}};
  for (const char* name : {"F1Acc_score", "F1_Acc_score", "F1Acc"})
    CHECK(value(m, name) == .55 * .8 + .45 * .5);
  CHECK_FALSE(find_metric(m, "MOSI"));
  CHECK_THROWS_AS(find_metric({{"F1_score", 1}}, "F1Acc"), input_error);
}

TEST_CASE("metrics: bad input is refused", "[model][metrics][errors]") {
  for (const float bad : {kNan, kInf, -kInf}) {
    CHECK_THROWS_AS(regression_metrics(Values{1, bad}, Values{1, 2}), input_error);
    CHECK_THROWS_AS(regression_metrics(Values{1, 2}, Values{1, bad}), input_error);
    CHECK_THROWS_AS(sims_metrics(Values{bad}, Values{1}), input_error);
    CHECK_THROWS_AS(classification_metrics(Values{1, bad}, Values{0}, 2), input_error);
  }
  CHECK_THROWS_WITH(regression_metrics(Values{1, kNan}, Values{1, 2}),
                    Catch::Contains("prediction of sample 2"));
  CHECK_THROWS_WITH(classification_metrics(Values{1, 2, 3, kNan}, Values{0, 1}, 2),
                    Catch::Contains("score of sample 2"));
  CHECK_THROWS_AS(regression_metrics(Values{}, Values{}), input_error);
  CHECK_THROWS_AS(regression_metrics(Values{1}, Values{1, 2}), std::invalid_argument);
  for (const float label : {-1.f, 2.f, .5f})
    CHECK_THROWS_AS(classification_metrics(Values{1, 0}, Values{label}, 2), input_error);
  CHECK_THROWS_AS(confusion_matrix(Values{1}, Values{0}, 1), std::invalid_argument);
  CHECK_THROWS_AS(confusion_matrix(Values{1, 2, 3}, Values{0}, 2), std::invalid_argument);
}
