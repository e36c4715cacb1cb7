// Generated data: a small counter-seeded generator, factors, mixing and the label.
#include "data/generated.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <utility>

namespace decalign {
namespace {

constexpr int64_t kCommon = 2;  // common factors
constexpr int64_t kUnique = 2;  // unique factors of each modality
constexpr double kMaxNoise = 1.0;

uint64_t scramble(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// SplitMix64: a stream of its own for every (seed, a, b, c).
class Stream {
 public:
  Stream(uint64_t seed, uint64_t a, uint64_t b, uint64_t c)
      : state_(scramble(scramble(scramble(scramble(seed) ^ a) ^ b) ^ c)) {}

  /// Uniform in (0, 1).
  double uniform() {
    state_ += 0x9e3779b97f4a7c15u;
    return (double(scramble(state_) >> 11) + 0.5) * 0x1p-53;
  }

  /// N(0, 1) by Box and Muller.
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  uint64_t state_;
};

enum Purpose : uint64_t { kMixing, kFactors, kLabelNoise, kFeatures };

struct Mixing {
  std::vector<double> common;  // [d, kCommon]
  std::vector<double> unique;  // [d, kUnique]
};

struct Factors {
  std::vector<double> common;               // [kCommon]
  std::vector<std::vector<double>> unique;  // [M][kUnique]
};

Mixing draw_mixing(uint64_t seed, uint64_t modality, int64_t width) {
  Stream stream(seed, kMixing, modality, 0);
  Mixing mixing;
  for (int64_t i = 0; i < width * kCommon; ++i) mixing.common.push_back(stream.normal());
  for (int64_t i = 0; i < width * kUnique; ++i) mixing.unique.push_back(stream.normal());
  return mixing;
}

Factors draw_factors(uint64_t seed, uint64_t split, uint64_t sample, size_t modalities) {
  Factors factors;
  Stream stream(seed, kFactors, split, sample);
  for (int64_t i = 0; i < kCommon; ++i) factors.common.push_back(stream.normal());
  factors.unique.resize(modalities);
  for (auto& unique : factors.unique) {
    for (int64_t i = 0; i < kUnique; ++i) unique.push_back(stream.normal());
  }
  return factors;
}

double clean_label(const Factors& factors) {
  const size_t count = factors.unique.size();
  const size_t pairs = count == 2 ? 1 : count;
  auto unique = [&](size_t m) { return std::tanh(2.0 * factors.unique[m % count][0]); };
  double products = 0.0;
  for (size_t m = 0; m < pairs; ++m) products += unique(m) * unique(m + 1);
  products *= 0.8 / std::sqrt(double(pairs));
  return 2.0 * std::tanh(0.35 * factors.common[0] + products + 0.4 * factors.common[1] * unique(0));
}

double label_noise(uint64_t seed, uint64_t split, uint64_t sample, double sigma) {
  Stream stream(seed, kLabelNoise, split, sample);
  for (;;) {
    const double noise = sigma * stream.normal();
    if (std::abs(noise) <= kMaxNoise) return noise;
  }
}

/// Writes one sequence [T, d] and returns its length.
int32_t draw_sequence(Stream stream, const Mixing& mixing, const Factors& factors, size_t modality,
                      const GeneratedModality& shape, double noise, float* out) {
  const int64_t shortest = (shape.steps + 1) / 2;
  const auto length = shortest + int64_t(stream.uniform() * double(shape.steps - shortest + 1));
  for (int64_t t = 0; t < length; ++t) {
    const double common_amplitude = 0.5 + stream.uniform();
    const double unique_amplitude = 0.5 + stream.uniform();
    for (int64_t j = 0; j < shape.width; ++j) {
      double common = 0.0;
      double unique = 0.0;
      for (int64_t k = 0; k < kCommon; ++k) {
        common += mixing.common[size_t(j * kCommon + k)] * factors.common[size_t(k)];
      }
      for (int64_t k = 0; k < kUnique; ++k) {
        unique += mixing.unique[size_t(j * kUnique + k)] * factors.unique[modality][size_t(k)];
      }
      *out++ = float(0.5 * (common_amplitude * common + unique_amplitude * unique) +
                     noise * stream.normal());
    }
  }
  return int32_t(length);
}

void check(const GeneratedOptions& options) {
  auto need = [](bool holds, const std::string& what) {
    if (!holds) throw input_error("generated data: " + what);
  };
  need(options.modalities.size() >= 2, "at least 2 modalities are needed");
  need(options.train >= 1 && options.valid >= 1 && options.test >= 1,
       "every split needs at least 1 sample");
  need(options.label_noise >= 0.0 && options.label_noise <= 1.0, "label_noise must lie in [0, 1]");
  need(options.feature_noise >= 0.0 && std::isfinite(options.feature_noise),
       "feature_noise must be at least 0");
  std::set<std::string> names;
  for (const auto& modality : options.modalities) {
    need(modality.steps >= 2 && modality.width >= 1,
         "modality " + modality.name + " needs at least 2 steps and width 1");
    need(names.insert(modality.name).second, "two modalities are named " + modality.name);
  }
}

Split draw_split(const GeneratedOptions& options, const std::vector<Mixing>& mixings,
                 const std::string& name, uint64_t split_index, int64_t count,
                 std::vector<double>& clean) {
  Split split;
  for (const auto& shape : options.modalities) {
    Sequences sequences;
    sequences.name = shape.name;
    sequences.count = count;
    sequences.steps = shape.steps;
    sequences.width = shape.width;
    sequences.values.assign(size_t(count * shape.steps * shape.width), 0.0f);
    split.modalities.push_back(std::move(sequences));
  }
  for (int64_t n = 0; n < count; ++n) {
    const Factors factors =
        draw_factors(options.seed, split_index, uint64_t(n), options.modalities.size());
    clean.push_back(clean_label(factors));
    split.labels.push_back(float(
        clean.back() + label_noise(options.seed, split_index, uint64_t(n), options.label_noise)));
    split.ids.push_back(name + "_" + std::to_string(n));
    for (size_t m = 0; m < options.modalities.size(); ++m) {
      Sequences& sequences = split.modalities[m];
      const Stream stream(options.seed, kFeatures + m, split_index, uint64_t(n));
      float* out = sequences.values.data() + n * sequences.steps * sequences.width;
      sequences.lengths.push_back(draw_sequence(stream, mixings[m], factors, m,
                                                options.modalities[m], options.feature_noise, out));
    }
  }
  return split;
}

}  // namespace

Dataset generate_dataset(const GeneratedOptions& options) {
  check(options);
  std::vector<Mixing> mixings;
  for (size_t m = 0; m < options.modalities.size(); ++m) {
    mixings.push_back(draw_mixing(options.seed, m, options.modalities[m].width));
  }
  Dataset dataset;
  dataset.labels_key = "regression_labels";
  const std::pair<const char*, int64_t> splits[] = {
      {"train", options.train}, {"valid", options.valid}, {"test", options.test}};
  std::vector<double> clean;
  for (uint64_t i = 0; i < 3; ++i) {
    clean.clear();
    const auto& [name, count] = splits[i];
    dataset.splits[name] = draw_split(options, mixings, name, i, count, clean);
  }
  const Split& test = dataset.splits["test"];
  double error = 0.0;
  for (size_t n = 0; n < clean.size(); ++n) error += std::abs(double(test.labels[n]) - clean[n]);
  dataset.noise_floor_mae = error / double(clean.size());
  for (auto& [name, split] : dataset.splits) sort_modalities(split.modalities);
  return dataset;
}

}  // namespace decalign
