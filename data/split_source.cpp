// Reading the chosen splits of a file, with feature files that replace modalities.
#include "data/split_source.h"

#include <utility>

namespace decalign {
namespace {

/// A feature file, open for as long as its arrays are needed.
struct FeatureFile {
  explicit FeatureFile(const std::string& path)
      : file(path), source(open_splits(view_of(file, path))) {}
  MappedFile file;
  std::unique_ptr<SplitSource> source;
};

/// The labels to read if the options leave it open: those that the split has, regression first.
std::string choose_labels(const SplitFields& fields) {
  const bool classes = fields.fields.contains("classification_labels");
  const bool regression = fields.fields.contains("regression_labels");
  return classes && !regression ? "classification_labels" : "regression_labels";
}

}  // namespace

Dataset read_splits(const SplitSource& source, const LoadOptions& options) {
  LoadOptions resolved = options;
  std::map<std::string, std::unique_ptr<FeatureFile>> features;
  for (const auto& [modality, path] : options.feature_files) {
    features[modality] = std::make_unique<FeatureFile>(path);
  }
  Dataset dataset;
  const auto has = [&](const std::string& split) { return source.has(split); };
  for (const std::string& split : chosen_splits(options, source.file(), has)) {
    const SplitFields fields = source.fields(split);
    if (resolved.labels_key.empty()) resolved.labels_key = choose_labels(fields);
    std::map<std::string, SplitFields> replacements;
    for (const auto& [modality, feature] : features) {
      if (!feature->source->has(split)) {
        throw input_error(feature->source->file() + ": has no split '" + split + "'");
      }
      replacements[modality] = feature->source->fields(split);
    }
    dataset.splits[split] = build_split(fields, resolved, replacements);
  }
  dataset.labels_key = resolved.labels_key;
  dataset.noise_floor_mae = source.noise_floor_mae();
  check_dataset(dataset, source.file());
  return dataset;
}

}  // namespace decalign
