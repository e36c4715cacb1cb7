// The final table and the run's log.
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <sstream>

#include "data/dataset.h"
#include "model/report.h"
#include "model/run_log.h"
#include "temporary_folder.h"

using namespace decalign;

namespace {

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("report: mean and sample deviation", "[model][report]") {
  const MeanStd s = mean_std({2, 4, 4, 4, 5, 5, 7, 9});
  CHECK(s.mean == Approx(5).epsilon(1e-15));
  CHECK(s.std == Approx(std::sqrt(32.0 / 7)).epsilon(1e-15));
  CHECK(mean_std({3}).mean == 3);
  CHECK(mean_std({3}).std == 0);
  CHECK(mean_std({}).mean == 0);
}

TEST_CASE("report: one row per predictor, blanks for what it lacks, columns aligned",
          "[model][report]") {
  const std::vector<ReportRow> rows{
      {"mean", {{{"MAE", 1.25}}}},
      {"DecAlign", {{{"MAE", 1}, {"Corr", 0.5}}, {{"MAE", 2}, {"Corr", 0.75}}}},
      {"floor", {{{"Other", 1}}}}};
  CHECK(report_table(rows, {"MAE", "Corr"}) ==
        "                       MAE              Corr\n"
        "mean                1.2500                  \n"
        "DecAlign  1.5000 +- 0.7071  0.6250 +- 0.1768\n"
        "floor                                       \n");
}

TEST_CASE("report: the metrics shown are the protocol's", "[model][report]") {
  CHECK(table_metrics("mosi", false) ==
        std::vector<std::string>{"MAE", "Corr", "Acc_2", "F1_score", "Acc_7"});
  CHECK(table_metrics("sims", false).size() == 6);
  CHECK(table_metrics("iemocap", true) == std::vector<std::string>{"WAcc", "WAF1", "Macro_F1"});
  // Every name is one that evaluate() gives.
  const std::vector<float> scores{0.5f, -0.5f, 0.2f, 0.8f}, labels{1, 0};
  for (const auto& [dataset, classes] : {std::pair{"mosi", 0}, {"sims", 0}, {"iemocap", 2}}) {
    const Metrics metrics =
        evaluate(dataset, classes, std::span(scores).first(classes ? 4 : 2), labels);
    for (const std::string& name : table_metrics(dataset, classes > 0)) {
      INFO(dataset << ": " << name);
      CHECK(find_metric(metrics, name));
    }
  }
}

TEST_CASE("run log: lines are appended to the file, progress is not", "[model][report]") {
  const testing::TemporaryFolder folder;
  const std::string path = folder / "log.txt";
  for (const char* text : {"first", "second"}) {
    RunLog log(path, true);
    log.line(text);
    log.progress("epoch 1");
    log.warn("careful");
  }
  CHECK(content(path) == "first\nwarning: careful\nsecond\nwarning: careful\n");
  CHECK_THROWS_AS(RunLog(folder / "none/log.txt", true), input_error);
}

TEST_CASE("run log: format is printf of any length", "[model][report]") {
  CHECK(format("%d %s %.2f", 3, "x", 0.125) == "3 x 0.12");
  CHECK(format("%s", std::string(5000, 'y').c_str()) == std::string(5000, 'y'));
  CHECK(format("%s", "").empty());
}
