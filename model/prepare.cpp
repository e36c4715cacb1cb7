#include "model/prepare.h"

#include <algorithm>
#include <filesystem>

#include "data/dataset_file.h"
#include "data/generated.h"
#include "data/tokens.h"

namespace decalign {
namespace {

// The last step that is not all zero, for modalities whose file gives no lengths.
void find_lengths(Sequences& s) {
  if (!s.lengths.empty() || s.count == 0) return;
  s.lengths.resize(size_t(s.count));
  for (int64_t n = 0; n < s.count; ++n) {
    const auto sample = s.sample(n);
    int64_t last = std::ssize(sample);
    while (last > 0 && sample[size_t(last - 1)] == 0) --last;
    s.lengths[size_t(n)] = int32_t((last + s.width - 1) / s.width);
  }
}

// Padding must not leak through a projection wider than one step, nor standardised zeros count as
// data.
void clear_padding(Sequences& s) {
  if (s.lengths.empty()) return;  // averaged over time: there is no padding
  for (int64_t n = 0; n < s.count; ++n) {
    const auto begin = s.values.begin() + n * s.steps * s.width;
    std::fill(begin + s.lengths[size_t(n)] * s.width, begin + s.steps * s.width, 0.0f);
  }
}

}  // namespace

std::string dataset_alias(const std::string& name) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return char(std::tolower(c)); });
  if (lower == "ch-sims" || lower == "ch_sims" || lower == "chsims" || lower == "ch-sims-v1")
    return "sims";
  for (const char* known : {"mosi", "mosei", "sims", "iemocap", "generated"})
    if (lower == known) return lower;
  return name;
}

std::string dataset_path(const std::string& name, const std::string& data_dir) {
  const std::filesystem::path dir = data_dir.empty() ? "data" : data_dir;
  if (name == "mosi") return dir / "MOSI" / "mosi_aligned_50.pkl";
  if (name == "mosei") return dir / "MOSEI" / "mosei_aligned_50.pkl";
  if (name == "iemocap") return dir / "IEMOCAP" / "iemocap_data.pkl";
  if (name == "sims") {
    const auto usual = dir / "CH-SIMS" / "chsims.pkl",
               processed = dir / "SIMS" / "Processed" / "unaligned_39.pkl";
    return !std::filesystem::exists(usual) && std::filesystem::exists(processed) ? processed
                                                                                 : usual;
  }
  return name;
}

bool has_tokens(const Dataset& dataset) {
  for (const auto& [name, split] : dataset.splits)
    for (const Sequences& s : split.modalities)
      if (!s.tokens.empty()) return true;
  return false;
}

Dataset open_dataset(const Config& config, const std::string& dataset, const std::string& data_dir,
                     const Pretrained* encoder, const std::vector<std::string>& splits,
                     bool allow_unlabelled, const std::string& missing) {
  Dataset data;
  if (dataset == "generated") {
    data = generate_dataset();
  } else {
    LoadOptions options;
    options.labels_key = config.classification() ? "classification_labels" : "regression_labels";
    options.splits = splits;
    options.allow_unlabelled = allow_unlabelled;
    options.token_ids = encoder != nullptr;
    options.no_tokens = missing;
    if (encoder) {
      options.tokenizer = encoder->tokenizer.get();
      options.token_steps =
          std::clamp(encoder->config.max_position_embeddings, int64_t(2), options.token_steps);
    }
    if (!config.feature_T.empty()) options.feature_files["text"] = config.feature_T;
    if (!config.feature_A.empty()) options.feature_files["audio"] = config.feature_A;
    if (!config.feature_V.empty()) options.feature_files["vision"] = config.feature_V;
    const std::string path =
        config.featurePath.empty() ? dataset_path(dataset, data_dir) : config.featurePath;
    data = load_dataset(path, options);
    if (encoder) {
      for (auto& [name, split] : data.splits) {
        check_token_ids(split, encoder->config.vocab_size, encoder->config.type_vocab_size,
                        path + ": split " + name);
        for (Sequences& s : split.modalities) {
          if (s.tokens.empty()) continue;
          s.width = encoder->config.hidden_size;
          if (s.steps > encoder->config.max_position_embeddings)
            throw input_error(path + ": split " + name + ": text has " + std::to_string(s.steps) +
                              " tokens, the encoder takes " +
                              std::to_string(encoder->config.max_position_embeddings));
        }
      }
    }
  }
  if (config.iemocap_protocol == "paper_count" && dataset == "iemocap" &&
      data.splits.contains("train"))
    merge_train_and_valid(data);
  return data;
}

Statistics prepare(const Config& config, Dataset& dataset, const Statistics& given) {
  const bool by_length = config.mask_source == "lengths";
  for (auto& [name, split] : dataset.splits)
    for (Sequences& s : split.modalities)
      if (!s.values.empty()) find_lengths(s);
  Statistics statistics = given;
  if (config.need_feature_standardized && given.empty()) {
    const auto train = dataset.splits.find("train");
    if (train == dataset.splits.end())
      throw input_error("standardising needs the training split or saved statistics");
    for (const Sequences& s : train->second.modalities) {
      const auto& chosen = config.feature_standardize_modalities;
      if (!s.values.empty() && std::find(chosen.begin(), chosen.end(), s.name) != chosen.end())
        statistics[s.name] = feature_stats(s, config.feature_clip_percentiles[0],
                                           config.feature_clip_percentiles[1]);
    }
  }
  for (auto& [name, split] : dataset.splits) {
    for (Sequences& s : split.modalities) {
      if (const auto found = statistics.find(s.name); found != statistics.end())
        standardize(s, found->second);
      if (config.need_normalized && (s.name == "audio" || s.name == "vision")) average_over_time(s);
      if (by_length && !s.values.empty()) clear_padding(s);
    }
  }
  return statistics;
}

std::vector<double> class_weights(const Config& config, const Split& train) {
  if (!config.classification()) return {};
  if (!config.class_weights.empty() || config.class_weight != "balanced")
    return config.class_weights;
  std::vector<double> counts(size_t(config.num_classes), 0), weights;
  for (float y : train.labels) ++counts[size_t(y)];
  for (double count : counts)
    weights.push_back(double(train.count()) / std::max(count, 1.0) / double(config.num_classes));
  return weights;
}

void check_labels(const Config& config, const Dataset& dataset, const std::string& where) {
  if (!config.classification()) return;
  for (const auto& [name, split] : dataset.splits)
    for (size_t n = 0; n < split.labels.size(); ++n)
      if (const float y = split.labels[n]; y < 0 || y >= float(config.num_classes))
        throw input_error(where + ": split " + name + ": " + dataset.labels_key + " of sample " +
                          split.ids[n] + " is " + std::to_string(int64_t(y)) +
                          ", expected a class in [0, " + std::to_string(config.num_classes) + ")");
}

}  // namespace decalign
