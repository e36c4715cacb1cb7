// The final table: baselines beside the model, mean and standard deviation over seeds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/metrics.h"

namespace decalign {

/// One row: a predictor with one set of metrics per seed (one set for what has no seed).
struct ReportRow {
  std::string name;
  std::vector<Metrics> runs;
};

/// A plain-text table of the named metrics, each as the mean over the row's runs and, with several,
/// the sample standard deviation. A metric that a row does not have is left blank.
std::string report_table(const std::vector<ReportRow>& rows,
                         const std::vector<std::string>& metrics);

/// What the table shows for a protocol: the release's metrics of it.
std::vector<std::string> table_metrics(const std::string& dataset, bool classification);

struct MeanStd {
  double mean = 0, std = 0;  ///< std: sample deviation, 0 for one value
};
MeanStd mean_std(const std::vector<double>& values);

}  // namespace decalign
