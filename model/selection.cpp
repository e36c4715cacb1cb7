#include "model/selection.h"

#include <algorithm>
#include <cmath>

namespace decalign {
namespace {

MetricChoice choice(const std::string& name, const std::string& mode) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return char(std::tolower(c)); });
  const auto has = [&](const char* word) { return lower.find(word) != std::string::npos; };
  const bool inferred = has("acc") || has("f1") || has("corr");
  return {name, mode.empty() ? inferred : mode == "max"};
}

std::string selection_name(const Config& config) {
  if (!config.selection_metric.empty()) return config.selection_metric;
  if (!config.classification()) return "loss";
  return "F1_score";
}

}  // namespace

double MetricChoice::value(const Metrics& metrics, double loss) const {
  return find_metric(rounded(metrics), name).value_or(loss);
}

MetricChoice selection_choice(const Config& config) {
  return choice(selection_name(config), config.selection_mode);
}

MetricChoice scheduler_choice(const Config& config) {
  return choice(config.scheduler_metric.empty() ? selection_name(config) : config.scheduler_metric,
                config.scheduler_mode);
}

bool PlateauScheduler::step(double value) {
  constexpr double kThreshold = 1e-4;
  const bool better =
      !started || (maximise ? value > best * (1 + kThreshold) : value < best * (1 - kThreshold));
  if (better && !std::isnan(value)) {
    started = true;
    best = value;
    bad_epochs = 0;
  } else {
    ++bad_epochs;
  }
  if (bad_epochs <= patience) return false;
  bad_epochs = 0;
  return true;
}

double PlateauScheduler::reduced(double learning_rate) const {
  constexpr double kSmallestChange = 1e-8;
  const double fallen = learning_rate * factor;
  return learning_rate - fallen > kSmallestChange ? fallen : learning_rate;
}

}  // namespace decalign
