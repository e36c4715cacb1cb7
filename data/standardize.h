// Standardising features with training statistics, averaging over time, merging splits.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace decalign {

/// Statistics of the d feature columns of one modality; in checkpoints `stats.<modality>.low` and
/// so on.
struct FeatureStats {
  std::vector<float> low;   ///< [d], lower percentile
  std::vector<float> high;  ///< [d], upper percentile
  std::vector<float> mean;  ///< [d], of the clipped values
  std::vector<float> std;   ///< [d], population deviation of the clipped values, at least 1e-6
};

/// Statistics over all N * T entries of each column, padding included. Percentiles in [0, 100] are
/// those of numpy (linear interpolation between order statistics, found exactly), mean and
/// deviation are summed in double. Needs a few MB whatever the size. Throws input_error unless 0 <=
/// low < high <= 100.
FeatureStats feature_stats(const Sequences& sequences, double low_percentile,
                           double high_percentile);

/// x = (clip(x, low, high) - mean) / std in place; what is not finite becomes 0.
/// Throws input_error if the widths differ.
void standardize(Sequences& sequences, const FeatureStats& stats);

/// Standardises the named modalities of every split with the statistics of "train", and returns
/// those. Throws input_error if there is no train split or a modality is missing.
std::map<std::string, FeatureStats> standardize_dataset(Dataset& dataset,
                                                        const std::vector<std::string>& modalities,
                                                        double low_percentile = 0.5,
                                                        double high_percentile = 99.5);

/// Applies statistics of an earlier training. Throws input_error as above.
void standardize_dataset(Dataset& dataset, const std::map<std::string, FeatureStats>& stats);

/// `need_normalized`: replaces each sequence by its mean over all T steps, padding included: T = 1,
/// no lengths.
void average_over_time(Sequences& sequences);

/// `iemocap_protocol: paper_count`: train becomes train followed by valid, valid becomes a copy of
/// test. Throws input_error if one of the three is missing or T differs between train and valid.
void merge_train_and_valid(Dataset& dataset);

}  // namespace decalign
