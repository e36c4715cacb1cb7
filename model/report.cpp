#include "model/report.h"

#include <algorithm>
#include <cmath>

#include "model/run_log.h"

namespace decalign {

MeanStd mean_std(const std::vector<double>& values) {
  MeanStd result;
  const double n = double(values.size());
  if (values.empty()) return result;
  for (double v : values) result.mean += v / n;
  if (values.size() < 2) return result;
  for (double v : values) result.std += (v - result.mean) * (v - result.mean) / (n - 1);
  result.std = std::sqrt(result.std);
  return result;
}

std::vector<std::string> table_metrics(const std::string& dataset, bool classification) {
  if (classification) return {"WAcc", "WAF1", "Macro_F1"};
  if (dataset == "sims")
    return {"MAE", "Corr", "Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score"};
  return {"MAE", "Corr", "Acc_2", "F1_score", "Acc_7"};
}

std::string report_table(const std::vector<ReportRow>& rows,
                         const std::vector<std::string>& metrics) {
  std::vector<std::vector<std::string>> cells{{""}};
  cells[0].insert(cells[0].end(), metrics.begin(), metrics.end());
  for (const ReportRow& row : rows) {
    std::vector<std::string> line{row.name};
    for (const std::string& metric : metrics) {
      std::vector<double> values;
      for (const Metrics& run : row.runs)
        if (const auto value = find_metric(run, metric)) values.push_back(*value);
      const MeanStd s = mean_std(values);
      line.push_back(values.empty()      ? ""
                     : values.size() > 1 ? format("%.4f +- %.4f", s.mean, s.std)
                                         : format("%.4f", s.mean));
    }
    cells.push_back(std::move(line));
  }
  std::string table;
  for (const auto& line : cells) {
    std::string text;
    for (size_t c = 0; c < line.size(); ++c) {
      size_t width = 0;
      for (const auto& other : cells) width = std::max(width, other[c].size());
      text += c == 0 ? format("%-*s", int(width), line[c].c_str())
                     : format("  %*s", int(width), line[c].c_str());
    }
    table += text + "\n";
  }
  return table;
}

}  // namespace decalign
