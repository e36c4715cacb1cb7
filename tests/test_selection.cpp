// Which epoch is best, and when the learning rate falls, against sequences worked out by hand.
#include <catch2/catch.hpp>
#include <cmath>

#include "model/selection.h"

using namespace decalign;

namespace {

std::vector<double> rates(PlateauScheduler scheduler, const std::vector<double>& values,
                          double rate = 1) {
  std::vector<double> result;
  for (double value : values) {
    if (scheduler.step(value)) rate = scheduler.reduced(rate);
    result.push_back(rate);
  }
  return result;
}

PlateauScheduler scheduler(int64_t patience, double factor, bool maximise = false) {
  PlateauScheduler s;
  s.patience = patience;
  s.factor = factor;
  s.maximise = maximise;
  return s;
}

MetricChoice selection(const std::string& metric, const std::string& mode = "") {
  Config config;
  config.selection_metric = metric;
  config.selection_mode = mode;
  return selection_choice(config);
}

}  // namespace

TEST_CASE("scheduler: the rate falls after more than `patience` bad epochs in a row",
          "[model][selection]") {
  // best 5, then 3 epochs without improvement: the third exceeds patience 2; the count restarts.
  CHECK(rates(scheduler(2, 0.5), {5, 6, 5, 7, 7, 7, 7, 7}) ==
        std::vector<double>{1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25});
  // An improvement in between restarts the count.
  CHECK(rates(scheduler(1, 0.5), {5, 6, 4, 6, 3, 6, 6}) ==
        std::vector<double>{1, 1, 1, 1, 1, 1, 0.5});
  // Patience 0: at once.
  CHECK(rates(scheduler(0, 0.5), {1, 1, 0.5, 2}) == std::vector<double>{1, 0.5, 0.5, 0.25});
}

TEST_CASE("scheduler: an improvement must exceed the relative threshold of 1e-4",
          "[model][selection]") {
  CHECK(rates(scheduler(0, 0.5), {1, 0.99991}) == std::vector<double>{1, 0.5});
  CHECK(rates(scheduler(0, 0.5), {1, 0.99989}) == std::vector<double>{1, 1});
  CHECK(rates(scheduler(0, 0.5, true), {1, 1.00009}) == std::vector<double>{1, 0.5});
  CHECK(rates(scheduler(0, 0.5, true), {1, 1.00011}) == std::vector<double>{1, 1});
  // Against the best, not the last: small gains that together exceed it count once they do.
  CHECK(rates(scheduler(1, 0.5), {1, 0.99995, 0.99985, 0.99980}) ==
        std::vector<double>{1, 1, 1, 1});
  // The release's form for negative values: best (1 - 1e-4) is above a negative best.
  CHECK(rates(scheduler(0, 0.5), {-1, -1}) == std::vector<double>{1, 1});
}

TEST_CASE("scheduler: maximising, the direction turns", "[model][selection]") {
  CHECK(rates(scheduler(1, 0.1, true), {0.5, 0.6, 0.6, 0.55, 0.7}) ==
        std::vector<double>{1, 1, 1, 0.1, 0.1});
}

TEST_CASE("scheduler: NaN never counts as an improvement", "[model][selection]") {
  CHECK(rates(scheduler(1, 0.5), {NAN, NAN, 1, 2, 2}) ==
        std::vector<double>{1, 0.5, 0.5, 0.5, 0.25});
}

TEST_CASE("scheduler: a rate changes by more than 1e-8 or not at all", "[model][selection]") {
  CHECK(rates(scheduler(0, 0.5), {1, 1}, 1e-8) == std::vector<double>{1e-8, 1e-8});
  CHECK(rates(scheduler(0, 0.5), {1, 1}, 4e-8) == std::vector<double>{4e-8, 2e-8});
}

TEST_CASE("selection: the direction follows from the metric's name unless it is given",
          "[model][selection]") {
  for (const char* up : {"Acc_2", "F1_score", "Corr", "Mult_acc_2", "Has0_acc_2", "WAF1", "acc"})
    CHECK(selection(up).maximise);
  for (const char* down : {"MAE", "Loss", "loss", "MOSI", "SIMS"})
    CHECK_FALSE(selection(down).maximise);
  CHECK(selection("MAE", "max").maximise);
  CHECK_FALSE(selection("Corr", "min").maximise);
}

TEST_CASE("selection: defaults are the loss, and weighted F1 in classification",
          "[model][selection]") {
  Config config;
  CHECK(selection_choice(config).name == "loss");
  CHECK_FALSE(selection_choice(config).maximise);
  config.train_mode = "classification";
  CHECK(selection_choice(config).name == "F1_score");
  CHECK(selection_choice(config).maximise);
  CHECK(scheduler_choice(config).name == "F1_score");
  config.selection_metric = "Acc";
  CHECK(scheduler_choice(config).name == "Acc");
  CHECK(scheduler_choice(config).maximise);
  config.scheduler_metric = "MAE";
  CHECK(scheduler_choice(config).name == "MAE");
  CHECK_FALSE(scheduler_choice(config).maximise);
  config.scheduler_mode = "max";
  CHECK(scheduler_choice(config).maximise);
  CHECK(selection_choice(config).name == "Acc");
}

TEST_CASE("selection: metrics count rounded to four decimals, the loss as it is",
          "[model][selection]") {
  const Metrics metrics{{"MAE", 0.123449}, {"Corr", 0.5}};
  CHECK(selection("MAE").value(metrics, 7.123456) == 0.1234);
  CHECK(selection("loss").value(metrics, 7.123456) == 7.123456);
  CHECK(selection("MOSI").value(metrics, 7.123456) == 7.123456);
  CHECK_FALSE(selection("MAE").better(0.5, 0.5));
  CHECK(selection("MAE").better(0.4, 0.5));
  CHECK(selection("Corr").better(0.6, 0.5));
  CHECK_FALSE(selection("Corr").better(0.4, 0.5));
  CHECK_FALSE(selection("MAE").better(NAN, 1e8));
  CHECK_FALSE(selection("Corr").better(NAN, -1e8));
}
