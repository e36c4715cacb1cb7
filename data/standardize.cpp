// Standardising features with training statistics, averaging over time, merging splits.
#include "data/standardize.h"

#include <algorithm>
#include <cmath>

#include "data/column_ranks.h"

namespace decalign {
namespace {

constexpr double kSmallestStd = 1e-6;

Split& split_of(Dataset& dataset, const std::string& name) {
  const auto found = dataset.splits.find(name);
  if (found == dataset.splits.end()) throw input_error("the data set has no split '" + name + "'");
  return found->second;
}

Sequences& modality_of(Split& split, const std::string& name) {
  for (Sequences& sequences : split.modalities) {
    if (sequences.name == name) return sequences;
  }
  throw input_error("the data set has no modality '" + name + "' to standardise");
}

/// Between neighbours in float as numpy does it: the difference rounds, the rest is double.
double interpolate(float below, float above, double fraction) {
  const double difference = above - below;
  return fraction < 0.5 ? below + difference * fraction : above - difference * (1.0 - fraction);
}

struct Rank {
  int64_t below;
  int64_t above;
  double fraction;
};

Rank rank_of(double percentile, int64_t count) {
  const double place = percentile / 100.0 * double(count - 1);
  const auto below = std::min(int64_t(std::floor(place)), count - 1);
  return {below, std::min(below + 1, count - 1), place - double(below)};
}

/// Mean and deviation of the clipped columns; bounds in double as numpy has them.
void clipped_moments(const Sequences& sequences, const std::vector<double>& low,
                     const std::vector<double>& high, FeatureStats& stats) {
  const size_t width = low.size();
  const size_t rows = size_t(sequences.count * sequences.steps);
  std::vector<double> mean(width, 0.0);
  std::vector<double> square(width, 0.0);
  const float* x = sequences.values.data();
  for (size_t row = 0; row < rows; ++row) {
    for (size_t j = 0; j < width; ++j) {
      mean[j] += std::clamp(double(x[row * width + j]), low[j], high[j]);
    }
  }
  for (double& sum : mean) sum /= double(rows);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t j = 0; j < width; ++j) {
      const double offset = std::clamp(double(x[row * width + j]), low[j], high[j]) - mean[j];
      square[j] += offset * offset;
    }
  }
  for (size_t j = 0; j < width; ++j) {
    stats.mean.push_back(float(mean[j]));
    stats.std.push_back(float(std::max(std::sqrt(square[j] / double(rows)), kSmallestStd)));
  }
}

void append_lengths(Sequences& first, const Sequences& second) {
  if (first.lengths.empty() && second.lengths.empty()) return;
  auto full = [](const Sequences& s) {
    return s.lengths.empty() ? std::vector<int32_t>(size_t(s.count), int32_t(s.steps)) : s.lengths;
  };
  std::vector<int32_t> lengths = full(first);
  const std::vector<int32_t> more = full(second);
  lengths.insert(lengths.end(), more.begin(), more.end());
  first.lengths = std::move(lengths);
}

}  // namespace

FeatureStats feature_stats(const Sequences& sequences, double low_percentile,
                           double high_percentile) {
  if (!(low_percentile >= 0.0 && low_percentile < high_percentile && high_percentile <= 100.0)) {
    throw input_error("feature_clip_percentiles must be [low, high] with 0 <= low < high <= 100");
  }
  const int64_t rows = sequences.count * sequences.steps;
  if (rows < 1) throw input_error(sequences.name + ": no entries to take statistics of");
  const Rank bottom = rank_of(low_percentile, rows);
  const Rank top = rank_of(high_percentile, rows);
  const ColumnRanks ranks(sequences.values, sequences.width,
                          {bottom.below, bottom.above, top.below, top.above});
  std::vector<double> low;
  std::vector<double> high;
  for (int64_t j = 0; j < sequences.width; ++j) {
    low.push_back(interpolate(ranks.value(j, 0), ranks.value(j, 1), bottom.fraction));
    high.push_back(interpolate(ranks.value(j, 2), ranks.value(j, 3), top.fraction));
  }
  FeatureStats stats;
  stats.low.assign(low.begin(), low.end());
  stats.high.assign(high.begin(), high.end());
  clipped_moments(sequences, low, high, stats);
  return stats;
}

void standardize(Sequences& sequences, const FeatureStats& stats) {
  const size_t width = size_t(sequences.width);
  for (const auto* column : {&stats.low, &stats.high, &stats.mean, &stats.std}) {
    if (column->size() != width) {
      throw input_error(sequences.name + ": is " + std::to_string(width) +
                        " wide, the statistics are of width " + std::to_string(column->size()));
    }
  }
  for (size_t first = 0; first < sequences.values.size(); first += width) {
    float* x = sequences.values.data() + first;
    for (size_t j = 0; j < width; ++j) {
      const float clipped = std::min(std::max(x[j], stats.low[j]), stats.high[j]);
      const float value = (clipped - stats.mean[j]) / stats.std[j];
      x[j] = std::isfinite(value) ? value : 0.0f;
    }
  }
}

std::map<std::string, FeatureStats> standardize_dataset(Dataset& dataset,
                                                        const std::vector<std::string>& modalities,
                                                        double low_percentile,
                                                        double high_percentile) {
  std::map<std::string, FeatureStats> stats;
  Split& train = split_of(dataset, "train");
  for (const std::string& name : modalities) {
    stats[name] = feature_stats(modality_of(train, name), low_percentile, high_percentile);
  }
  standardize_dataset(dataset, stats);
  return stats;
}

void standardize_dataset(Dataset& dataset, const std::map<std::string, FeatureStats>& stats) {
  for (auto& [split_name, split] : dataset.splits) {
    for (const auto& [name, columns] : stats) standardize(modality_of(split, name), columns);
  }
}

void average_over_time(Sequences& sequences) {
  const int64_t width = sequences.width;
  std::vector<float> means(size_t(sequences.count * width));
  std::vector<double> sum(static_cast<size_t>(width));
  for (int64_t n = 0; n < sequences.count; ++n) {
    std::fill(sum.begin(), sum.end(), 0.0);
    const auto sample = sequences.sample(n);
    for (size_t i = 0; i < sample.size(); ++i) sum[i % size_t(width)] += sample[i];
    for (int64_t j = 0; j < width; ++j) {
      means[size_t(n * width + j)] = float(sum[size_t(j)] / double(sequences.steps));
    }
  }
  sequences.values = std::move(means);
  sequences.steps = 1;
  sequences.lengths.clear();
}

void merge_train_and_valid(Dataset& dataset) {
  Split& train = split_of(dataset, "train");
  Split& valid = split_of(dataset, "valid");
  const Split& test = split_of(dataset, "test");
  for (Sequences& first : train.modalities) {
    const Sequences& second = modality_of(valid, first.name);
    if (first.steps != second.steps || first.width != second.width) {
      throw input_error(first.name +
                        ": train and valid differ in length or width, so they cannot " +
                        "be merged");
    }
    append_lengths(first, second);
    first.values.insert(first.values.end(), second.values.begin(), second.values.end());
    first.tokens.insert(first.tokens.end(), second.tokens.begin(), second.tokens.end());
    first.count += second.count;
    first.cleaned += second.cleaned;
  }
  train.labels.insert(train.labels.end(), valid.labels.begin(), valid.labels.end());
  train.ids.insert(train.ids.end(), valid.ids.begin(), valid.ids.end());
  train.raw_text.insert(train.raw_text.end(), valid.raw_text.begin(), valid.raw_text.end());
  valid = test;
}

}  // namespace decalign
