// Generated data: sequences with known common and unique factors, a non-linear label and a known
// noise floor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace decalign {

/// One generated modality: its name, padded length T >= 2 and feature width d >= 1.
struct GeneratedModality {
  std::string name;
  int64_t steps;
  int64_t width;
};

/// What to generate. At least two modalities; sizes of splits >= 1.
struct GeneratedOptions {
  uint64_t seed = 1;  ///< of the data (factors, mixing, noise), not of the training
  int64_t train = 3000;
  int64_t valid = 500;
  int64_t test = 1000;
  std::vector<GeneratedModality> modalities = {
      {"text", 20, 24}, {"audio", 30, 12}, {"vision", 25, 16}};
  double label_noise = 0.4;    ///< sigma of the Gaussian label noise, which is cut at +-1
  double feature_noise = 0.5;  ///< sigma of the independent noise of every feature entry
};

/// Draws the data set.
///
/// Every sample n has two common factors c_0, c_1, seen in all modalities, and two unique factors
/// u_m0, u_m1 per modality, all N(0, 1). A step t below the sample's own length (uniform in [T/2,
/// T], per modality) holds
///     x_m[t] = a(t) A_m c + b(t) B_m u_m + feature_noise * N(0, 1)
/// with amplitudes a, b of mean 1 that vary from step to step; steps from the length on are zero.
/// The clean label
///     2 tanh(.35 c_0 + .8 / sqrt(M) * sum over m of s_m s_(m+1 mod M) + .4 c_1 s_0),   s_m =
///     tanh(2 u_m0)
/// (for M = 2 the sum has its one pair once) needs products of factors that no single modality
/// shows. The stored label adds noise that is symmetric, so the clean label is the best predictor
/// under MAE given the factors, and `noise_floor_mae` is its MAE on the test split. Labels lie
/// within [-3, 3]. The same options give the same data, whatever the standard library; a sample
/// does not depend on the number of samples before it. Throws input_error for options outside their
/// ranges.
Dataset generate_dataset(const GeneratedOptions& options = {});

}  // namespace decalign
